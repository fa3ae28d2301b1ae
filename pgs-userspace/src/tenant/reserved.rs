//! Names that PostgreSQL keeps for itself and that no tenant can have.

use std::fmt;

/// Whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// The internal superuser or a database that every server has.
    Builtin,
    /// The prefix of PostgreSQL's predefined roles.
    PredefinedRole,
    /// A keyword of `pg_hba.conf`.
    AccessKeyword,
    /// A role name that `CREATE ROLE` refuses.
    PseudoRole,
    /// A reserved word of PostgreSQL's SQL: it would need quotes wherever it stands.
    SqlWord,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "every PostgreSQL server has a role or a database of that name",
            Self::PredefinedRole => "PostgreSQL keeps names that start with `pg_` for itself",
            Self::AccessKeyword => "the word has a meaning of its own in pg_hba.conf",
            Self::PseudoRole => "PostgreSQL refuses a role of that name",
            Self::SqlWord => "it is a reserved word of SQL and would need quotes everywhere",
        })
    }
}

/// Why no tenant can be called `name`, if so.
pub fn reason(name: &str) -> Option<Reserved> {
    match name {
        "postgres" | "template0" | "template1" => Some(Reserved::Builtin),
        "public" | "none" => Some(Reserved::PseudoRole),
        "all" | "replication" | "samegroup" | "samerole" | "sameuser" => {
            Some(Reserved::AccessKeyword)
        }
        _ if name.starts_with("pg_") => Some(Reserved::PredefinedRole),
        _ if SQL_WORDS.binary_search(&name).is_ok() => Some(Reserved::SqlWord),
        _ => None,
    }
}

/// `SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')` of PostgreSQL 18, sorted.
const SQL_WORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_as_the_search_needs() {
        assert!(SQL_WORDS.is_sorted());
    }

    #[test]
    fn each_family_is_told_apart() {
        assert_eq!(reason("postgres"), Some(Reserved::Builtin));
        assert_eq!(reason("pg_monitor"), Some(Reserved::PredefinedRole));
        assert_eq!(reason("sameuser"), Some(Reserved::AccessKeyword));
        assert_eq!(reason("none"), Some(Reserved::PseudoRole));
        assert_eq!(reason("with"), Some(Reserved::SqlWord));
        assert_eq!(reason("pgx"), None);
        assert_eq!(reason("withal"), None);
    }
}
