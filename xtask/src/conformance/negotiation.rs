//! How libpq's settings for the first packets play out: with pgs as with PostgreSQL itself.
//!
//! A tenant's server has neither TLS nor a port, so what pgs is compared with is a server that has
//! both, with the same certificate and the same demands.

use super::endpoint::{Endpoint, Reference};
use super::ground::Ground;
use super::outcome::Tests;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant, Wanted};
use super::{fetch, program, psycopg};
use crate::report::Step;
use crate::{apt, process, workspace};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const TENANT: &str = "negotiation";
const LIMIT: Duration = Duration::from_secs(900);
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(300);
/// uid and gid of `postgres` in the image: the server insists that the key is its own.
const SERVER_USER: &str = "999:999";
/// Where the reference has certificate and access rules.
const PLACE: &str = "/etc/reference";
const CLEAR: &str = "without TLS";
const OFFERED: &str = "with TLS";
const REQUIRED: &str = "that requires TLS";

/// An interpreter with psycopg, and certificates.
pub(super) struct Negotiation {
    python: PathBuf,
    certificates: PathBuf,
}

impl Negotiation {
    pub(super) fn prepare(ground: &Ground) -> Result<Self> {
        let step = Step::new("psycopg and certificates");
        let python = psycopg::environment_with_driver(&step, &fetch::scratch("psycopg")?)?;
        if process::find("openssl").is_none() {
            if !apt::can_install() {
                bail!("`openssl` is not installed; run `sudo apt-get install openssl`");
            }
            apt::install(&step, &["openssl"])?;
        }
        let certificates = ground.directory().join("certificates");
        make_certificates(&certificates)?;
        step.done("there");
        Ok(Self {
            python,
            certificates,
        })
    }

    fn file(&self, name: &str) -> String {
        self.certificates.join(name).display().to_string()
    }
}

impl Suite for Negotiation {
    fn facts(&self) -> Result<Facts> {
        let driver = psycopg::driver_version(&self.python)?;
        let psql = process::output(Command::new("psql").arg("--version"))?;
        Ok(Facts {
            client: format!("{driver}; {psql}"),
            tests: "conformance/negotiation/matrix.py: sslmode × gssencmode × sslnegotiation × \
                    client certificate, and protocol versions, each with two kinds of cancel \
                    request, on a server without TLS, with it, and that requires it"
                .to_owned(),
            notes: vec![
                "A test is a combination and what came of it: let in or not and why, encrypted or \
                 not, cancelled or not. *Without pgs* is a PostgreSQL server of its own with the \
                 same certificate."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> Wanted {
        Wanted {
            id: TENANT,
            image: None,
        }
    }

    fn furnish(&self, _tenant: &Tenant<'_>) -> Result<()> {
        Ok(())
    }

    fn modes(&self) -> &'static [&'static str] {
        &[CLEAR, OFFERED, REQUIRED]
    }

    fn serve_arguments(&self, ground: &Ground, mode: &str) -> Result<Vec<String>> {
        let tls = ground.state_directory().join("tls");
        if tls.exists() {
            // The last subject's.
            fs::remove_dir_all(&tls)?;
        }
        if mode == CLEAR {
            return Ok(Vec::new());
        }
        let mut set = ground.pgs();
        set.args([
            "tls",
            "set",
            "--default",
            "--certificate",
            &self.file("server.crt"),
        ])
        .args(["--key", &self.file("server.key")]);
        process::output(&mut set)?;
        let required = (mode == REQUIRED).then(|| "--tls-required".to_owned());
        Ok(required.into_iter().collect())
    }

    fn reference(&self, ground: &Ground, mode: &str) -> Result<Option<Reference>> {
        let kind = if mode == REQUIRED { "hostssl" } else { "host" };
        let rules = format!("local all all trust\n{kind} all all all scram-sha-256\n");
        fs::write(self.certificates.join("pg_hba.conf"), rules)?;
        let place = self.certificates.display().to_string();
        process::output(Command::new("chown").args(["-R", SERVER_USER, &place]))?;
        let container = ground.container("reference");
        let mut create = Command::new("docker");
        create
            .args(["create", "--name", &container])
            .args(["--publish", &format!("127.0.0.1:{}:5432", ground.port)])
            .args(["--env", &format!("POSTGRES_PASSWORD={PASSWORD}")])
            .args(["--env", &format!("POSTGRES_USER={TENANT}")])
            .args([ground.image(), "postgres"])
            .args(["-c", &format!("hba_file={PLACE}/pg_hba.conf")]);
        if mode != CLEAR {
            create
                .args(["-c", "ssl=on"])
                .args(["-c", &format!("ssl_cert_file={PLACE}/server.crt")])
                .args(["-c", &format!("ssl_key_file={PLACE}/server.key")]);
        }
        process::output(&mut create)?;
        let reference = Reference { container };
        let docker = |arguments: &[&str]| process::output(Command::new("docker").args(arguments));
        let to = format!("{}:{PLACE}", reference.container);
        docker(&["cp", "--archive", &place, &to])?;
        docker(&["start", &reference.container])?;
        wait_ready(&reference.container)?;
        Ok(Some(reference))
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let log = log.with_extension(format!("{}.txt", endpoint.mode.replace(' ', "-")));
        let mut python = Command::new(&self.python);
        python
            .arg(workspace::root().join("conformance/negotiation/matrix.py"))
            .args([&endpoint.port().to_string(), TENANT, PASSWORD])
            .args([&self.certificates.display().to_string(), endpoint.mode]);
        let text = program::logged(&log, || {
            let status = program::run(step, &python, &log, LIMIT)?;
            anyhow::ensure!(status.success(), "the matrix broke off");
            Ok(())
        })?;
        Ok(program::plain_results(&text))
    }
}

fn wait_ready(container: &str) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    // While the data is being made the server listens on its Unix socket alone.
    let ready = || {
        let mut docker = Command::new("docker");
        docker.args(["exec", container, "pg_isready", "-q", "-h", "127.0.0.1"]);
        process::succeeds(&mut docker)
    };
    while !ready() {
        if Instant::now() >= deadline {
            bail!("{container} is not ready after {READY_LIMIT:?}; see `docker logs {container}`");
        }
        thread::sleep(POLL_PERIOD);
    }
    Ok(())
}

/// An authority, a server's certificate for localhost and a client's for the tenant's role.
fn make_certificates(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let openssl = |arguments: &[&str]| {
        process::output(
            Command::new("openssl")
                .current_dir(directory)
                .args(arguments),
        )
        .map(drop)
    };
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=conformance"];
    let files = ["-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&authority[..], &key, &files].concat())?;
    for (name, subject, names) in [
        ("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1"),
        ("client", "/CN=negotiation", "DNS:negotiation"),
    ] {
        let (key_file, request) = (format!("{name}.key"), format!("{name}.csr"));
        let files = ["-keyout", &key_file, "-out", &request];
        openssl(&[&["req", "-subj", subject][..], &key, &files].concat())?;
        let extensions = format!("{name}.ext");
        fs::write(
            directory.join(&extensions),
            format!("subjectAltName={names}\n"),
        )?;
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            &extensions,
            "-out",
            &format!("{name}.crt"),
        ])?;
        // libpq and PostgreSQL refuse keys that others can read.
        process::output(
            Command::new("chmod")
                .arg("600")
                .arg(directory.join(&key_file)),
        )?;
    }
    Ok(())
}
