//! Takes DWARF out of an eBPF object. BTF, which the kernel reads, stays.
//!
//! The object carries seven times its size in debug information that nothing loads, and only
//! there do the names of compilation units differ between builds.

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// Sections that hold debug information, and the relocations of them.
const DEBUG_SECTIONS: [&[u8]; 2] = [b".debug_", b".rel.debug_"];

/// The same object without debug sections.
pub(super) fn debug_information(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read64(object).context("read the object as 64-bit ELF")?;
    for section in &mut builder.sections {
        section.delete = DEBUG_SECTIONS
            .iter()
            .any(|prefix| section.name.starts_with(prefix));
    }
    // The symbols that name these sections go with them.
    builder.delete_orphan_symbols();
    add_section_names(&mut builder);
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("write the stripped object")?;
    Ok(stripped)
}

/// LLVM keeps the names of sections and of symbols in one table; the writer wants two.
fn add_section_names(builder: &mut Builder<'_>) {
    if builder
        .sections
        .iter()
        .any(|section| matches!(section.data, SectionData::SectionString))
    {
        return;
    }
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::Endianness;
    use object::elf::SHT_PROGBITS;

    fn object_with(names: &[&'static str]) -> Vec<u8> {
        let mut builder = Builder::new(Endianness::Little, true);
        for name in names {
            let section = builder.sections.add();
            section.name = (*name).into();
            section.sh_type = SHT_PROGBITS;
            section.data = SectionData::Data(b"content"[..].into());
        }
        add_section_names(&mut builder);
        builder.set_section_sizes();
        let mut object = Vec::new();
        builder.write(&mut object).unwrap();
        object
    }

    #[test]
    fn debug_sections_go_and_btf_stays() {
        let object = object_with(&["sk_skb/verdict", ".debug_info", ".BTF", ".debug_str"]);
        let stripped = debug_information(&object).unwrap();
        let names: Vec<Vec<u8>> = Builder::read64(&stripped[..])
            .unwrap()
            .sections
            .iter()
            .map(|section| section.name.to_vec())
            .collect();
        let expected: [&[u8]; 3] = [b"sk_skb/verdict", b".BTF", b".shstrtab"];
        assert_eq!(names, expected);
    }
}
