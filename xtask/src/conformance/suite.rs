//! What a suite is: something that is prepared once and run on every subject.

use super::compare::Due;
use super::endpoint::{Endpoint, Reference, Subject};
use super::ground::Ground;
use super::outcome::Tests;
use super::tenant::Tenant;
use super::{
    jdbc, negotiation, node_postgres, psycopg, psycopg2, regress, sqlalchemy, sqlx, tokio_postgres,
};
use crate::report::Step;
use anyhow::Result;
use std::path::Path;

/// The suites there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Regress,
    Psycopg,
    Psycopg2,
    Sqlalchemy,
    NodePostgres,
    TokioPostgres,
    Sqlx,
    Jdbc,
    Negotiation,
}

impl Name {
    pub(super) const ALL: [Self; 9] = [
        Self::Regress,
        Self::Psycopg,
        Self::Psycopg2,
        Self::Sqlalchemy,
        Self::NodePostgres,
        Self::TokioPostgres,
        Self::Sqlx,
        Self::Jdbc,
        Self::Negotiation,
    ];

    /// As it is typed, and as its results are called.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Regress => "regress",
            Self::Psycopg => "psycopg",
            Self::Psycopg2 => "psycopg2",
            Self::Sqlalchemy => "sqlalchemy",
            Self::NodePostgres => "node-postgres",
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
            Self::Jdbc => "jdbc",
            Self::Negotiation => "negotiation",
        }
    }

    /// What it runs, in a line.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Regress => "PostgreSQL's own regression and isolation tests, with psql 18",
            Self::Psycopg => "psycopg 3's own tests",
            Self::Psycopg2 => "psycopg2's own tests",
            Self::Sqlalchemy => "SQLAlchemy's tests on psycopg 3 and the libpq 18 inside it",
            Self::NodePostgres => "node-postgres' own integration tests",
            Self::TokioPostgres => "tokio-postgres' own tests",
            Self::Sqlx => "sqlx's own tests for PostgreSQL",
            Self::Jdbc => "a program of pgs's own on Debian's JDBC driver",
            Self::Negotiation => "how libpq 15 and 18 connect, compared with PostgreSQL itself",
        }
    }

    /// Whether it has anything to show on a subject.
    pub(super) fn runs_on(self, subject: Subject) -> bool {
        subject != Subject::Tls || self.over_tls()
    }

    fn over_tls(self) -> bool {
        match self {
            Self::Regress
            | Self::Psycopg
            | Self::Psycopg2
            | Self::Sqlalchemy
            | Self::NodePostgres
            | Self::Sqlx
            | Self::Jdbc => true,
            // Every test of the one connects with `NoTls`; what the other tests is TLS, on every
            // subject.
            Self::TokioPostgres | Self::Negotiation => false,
        }
    }

    /// Fetches and builds what it takes.
    pub(super) fn prepare(self, ground: &Ground) -> Result<Box<dyn Suite>> {
        Ok(match self {
            Self::Regress => Box::new(regress::Regress::prepare(ground)?),
            Self::Psycopg => Box::new(psycopg::Psycopg::prepare()?),
            Self::Psycopg2 => Box::new(psycopg2::Psycopg2::prepare()?),
            Self::Sqlalchemy => Box::new(sqlalchemy::Sqlalchemy::prepare()?),
            Self::NodePostgres => Box::new(node_postgres::NodePostgres::prepare()?),
            Self::TokioPostgres => Box::new(tokio_postgres::TokioPostgres::prepare(ground)?),
            Self::Sqlx => Box::new(sqlx::Sqlx::prepare()?),
            Self::Jdbc => Box::new(jdbc::Jdbc::prepare()?),
            Self::Negotiation => Box::new(negotiation::Negotiation::prepare(ground)?),
        })
    }
}

/// What a reader of the results must know of a suite.
pub(super) struct Facts {
    /// The client and its version.
    pub(super) client: String,
    /// Which tests, of which version, and where they come from.
    pub(super) tests: String,
    /// What was changed or left out for it to run here, and why. One sentence each.
    pub(super) notes: Vec<String>,
}

/// A suite that is ready to run.
pub(super) trait Suite {
    /// What the results say of it.
    fn facts(&self) -> Result<Facts>;

    /// The id of its tenant, which is made anew for every run.
    fn tenant(&self) -> &'static str;

    /// What the tenant is made from, where that is not the image of all tenants.
    fn image(&self) -> Option<&'static str> {
        None
    }

    /// What the tenant's server must have before clients come.
    fn furnish(&self, _tenant: &Tenant<'_>) -> Result<()> {
        Ok(())
    }

    /// In how many ways what answers is to be set up; one after the other.
    fn modes(&self) -> &'static [&'static str] {
        &[""]
    }

    /// Sets up pgs and the tenant for a mode and gives further arguments of `pgs serve`.
    fn serve_arguments(
        &self,
        _ground: &Ground,
        _mode: &str,
        _tenant: &Tenant<'_>,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Where a subject differs on purpose: the test that must be there through pgs instead of one
    /// without it, how it must end, and why.
    fn instead(&self, _subject: Subject, _test: &str) -> Option<Due> {
        None
    }

    /// What the suite runs on without pgs, where that is not the tenant's server.
    fn reference(&self, _ground: &Ground, _mode: &str) -> Result<Option<Reference>> {
        Ok(None)
    }

    /// Runs all of it and says how each test ended. What it prints goes to the file `log`.
    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests>;
}
