//! Looks for an order of the model's steps in which something goes wrong.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRunner;

use super::Flow;
use super::Rule;
use super::Step;

fn step() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let send = |large| [Make, Wake { large }];
    // Enough to fill what lies between the backend and the router.
    let burst = |count| [Make, Wake { large: true }, WorkAside].repeat(count);
    prop_oneof![
        4 => any::<bool>().prop_map(move |large| send(large).to_vec()),
        2 => (5_usize..14).prop_map(burst),
        1 => Just(vec![Make]),
        1 => any::<bool>().prop_map(|large| vec![Wake { large }]),
        1 => Just(vec![GoOn]),
        2 => Just(vec![Work]),
        2 => Just(vec![WorkAside]),
        2 => (1_usize..6).prop_map(|most| vec![Read { most }, Write { most }]),
        1 => (1_usize..6).prop_map(|most| vec![Read { most }]),
        1 => (1_usize..6).prop_map(|most| vec![Write { most }]),
        1 => Just(vec![LookWhetherFull]),
        1 => Just(vec![LookWhetherAsleep]),
        1 => Just(vec![LookWhetherFull, LookWhetherAsleep]),
        1 => Just(vec![Make, LookWhetherFull, LookWhetherAsleep]),
        2 => Just(vec![Make, LookWhetherFull, Wake { large: true }, LookWhetherAsleep, Make,
            Withdraw]),
        2 => Just(vec![LookWhetherAsleep, Make, Withdraw]),
        2 => Just(vec![Withdraw]),
        1 => Just(vec![LookWhetherQuiet, Make, Return]),
        2 => Just(vec![LookWhetherQuiet, Return]),
        1 => Just(vec![SeeToLag]),
    ]
}

/// Whether any order of steps loses, doubles or reorders a byte.
pub(super) fn search(without: Option<Rule>) -> Result<(), TestError<Vec<Vec<Step>>>> {
    let config = Config {
        // Found early, a fault ends the search.
        cases: if without.is_some() { 20_000 } else { 4_000 },
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config).run(&vec(step(), 1..80), |steps| {
        let mut flow = Flow {
            without,
            ..Flow::default()
        };
        for step in steps.into_iter().flatten() {
            flow.take(step);
        }
        flow.settle();
        let sent: Vec<u32> = (0..flow.sent).collect();
        prop_assert_eq!(flow.at_target, sent);
        Ok(())
    })
}
