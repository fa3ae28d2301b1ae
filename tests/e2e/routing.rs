//! Which tenant a startup packet names: user, then database, then `options`.

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "the_database_names_the_tenant",
        the_database_names_the_tenant,
    ),
    ("an_option_names_the_tenant", an_option_names_the_tenant),
    (
        "a_listener_for_one_tenant_comes_last",
        a_listener_for_one_tenant_comes_last,
    ),
    (
        "tenants_do_not_see_each_other",
        tenants_do_not_see_each_other,
    ),
];

const ROLE: &str = "reader";

/// A second role in the tenant `chief`.
fn second_role(stage: &Stage) -> anyhow::Result<Login> {
    let chief = stage.chief()?;
    let mut wire = stage.log_in(chief)?;
    wire.query(&format!("create role {ROLE} login password 'read only'"))?;
    let (user, database) = (ROLE.into(), chief.database.clone());
    Ok(Login {
        user,
        database,
        password: "read only".into(),
    })
}

fn the_database_names_the_tenant(stage: &Stage) -> anyhow::Result<()> {
    let mut wire = stage.log_in(&second_role(stage)?)?;
    let found = wire.query_value("select current_user || '@' || current_database()")?;
    ensure!(found == "reader@chief", "{found}");
    Ok(())
}

fn an_option_names_the_tenant(stage: &Stage) -> anyhow::Result<()> {
    let login = second_role(stage)?;
    for options in [
        "-c pgs.tenant=chief",
        "--pgs.tenant=chief -c statement_timeout=7s",
    ] {
        let mut wire = stage.connect()?;
        let parameters = [
            ("user", &login.user[..]),
            ("database", "postgres"),
            ("options", options),
        ];
        wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
        let greeting = wire.authenticate(&login.password)?;
        ensure!(greeting.refused().is_none(), "{options}: {greeting:?}");
        let found = wire.query_value("select current_user || '@' || current_database()")?;
        ensure!(found == "reader@postgres", "{options}: {found}");
    }
    Ok(())
}

fn a_listener_for_one_tenant_comes_last(stage: &Stage) -> anyhow::Result<()> {
    let login = second_role(stage)?;
    let arguments = ["--listen", "127.0.0.1:0=chief"];
    let router = stage
        .installation()?
        .second_router_with("pinned", &arguments)?;
    let status = router.status()?;
    let listen = status["listen"][1].as_str().unwrap_or_default();
    let pinned = listen
        .strip_suffix("=chief")
        .with_context(|| format!("the status: {status}"))?
        .parse()?;
    let attempt = |address, user: &str, options: &str, password: &str| {
        let mut wire = Wire::connect_tcp(address)?;
        let parameters = [
            ("user", user),
            ("database", "postgres"),
            ("options", options),
        ];
        wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
        let refused = wire.authenticate(password)?.refused();
        anyhow::Ok((wire, refused.unwrap_or_default()))
    };
    let (mut wire, _) = attempt(pinned, &login.user, "", &login.password)?;
    let found = wire.query_value("select current_user || '@' || current_database()")?;
    ensure!(found == "reader@postgres", "{found}");
    // Whoever names a tenant gets that one, and nothing where there is none of that name.
    let beta = stage.beta()?;
    let (mut wire, _) = attempt(pinned, &beta.user, "", &beta.password)?;
    ensure!(wire.query_value("select current_user")? == "beta");
    let nobody = "-c pgs.tenant=nobody";
    for (address, options) in [(router.address(), ""), (pinned, nobody)] {
        let (_, refused) = attempt(address, &login.user, options, &login.password)?;
        ensure!(refused == "28000", "{address}: {refused:?}");
    }
    Ok(())
}

fn tenants_do_not_see_each_other(stage: &Stage) -> anyhow::Result<()> {
    let (alpha, beta) = (stage.alpha()?, stage.beta()?);
    stage
        .log_in(alpha)?
        .query("create table if not exists only_alpha (i int)")?;
    let mut wire = stage.log_in(beta)?;
    let found = wire.query_value("select count(*) from pg_class where relname = 'only_alpha'")?;
    ensure!(found == "0", "beta sees a table of alpha");
    // The user decides: a login as beta on alpha's database reaches beta, which has no such one.
    let crossed = Login {
        database: alpha.database.clone(),
        ..beta.clone()
    };
    let mut wire = stage.connect()?;
    let refused = wire
        .log_in(&crossed)
        .err()
        .map(|error| format!("{error:#}"));
    ensure!(
        refused
            .as_ref()
            .is_some_and(|error| error.contains("3D000")),
        "{refused:?}"
    );
    Ok(())
}
