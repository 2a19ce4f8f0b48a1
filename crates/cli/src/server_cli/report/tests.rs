use spindle_proto::refusal::item_refusal;
use spindle_spiffe_core::Reason;

use super::*;
use crate::entry_plan::Conflict;
use crate::testing::Screen;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn entry(entry_id: &str, path: &str) -> types::Entry {
    types::Entry {
        id: entry_id.into(),
        spiffe_id: id(path),
        parent_id: id("/node"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        ..types::Entry::default()
    }
}

fn plan() -> Plan {
    let old = entry("team.db", "/db");
    let new = types::Entry { hint: "internal".into(), ..old.clone() };
    Plan {
        steps: vec![
            Step::Update(Box::new([old, new])),
            Step::Create(entry("team.web", "/web")),
            Step::Delete(entry("team.old", "/old")),
        ],
        conflicts: Vec::new(),
        unchanged: 4,
    }
}

fn show(plan: &Plan, outcomes: &[Outcome], form: OutputForm) -> Screen {
    let report =
        Report { plan, outcomes, dry_run: outcomes.is_empty(), wanted: "as declared", federation: None };
    Screen::show(|console| report.print(form, console))
}

const STEPS: &str = "\
~ update team.db  spiffe://example.org/db
    hint \"\" -> internal
+ create team.web  spiffe://example.org/web
    parent_id spiffe://example.org/node
    selectors [unix:uid:1]
- delete team.old  spiffe://example.org/old
    parent_id spiffe://example.org/node
";

fn done() -> Vec<Outcome> {
    ["team.db", "team.web", "team.old"].map(|id| Outcome::Done(id.into())).to_vec()
}

#[test]
fn a_dry_run_with_something_to_do_has_a_status_of_its_own() {
    let dry = show(&plan(), &[], OutputForm::Pretty);
    let sum = "Plan: 1 to create, 1 to update, 1 to delete, 4 unchanged, 0 in conflict.\n";
    assert_eq!((dry.out, dry.err.as_str()), (format!("{STEPS}{sum}"), ""));
    let pending = dry.result.expect_err("pending");
    assert_eq!((pending.exit(), pending.what()), (EXIT_PENDING, ""));
    let nothing = Plan { unchanged: 3, ..Plan::default() };
    let dry = show(&nothing, &[], OutputForm::Pretty);
    assert_eq!((dry.out.as_str(), dry.result), ("Nothing to do: 3 unchanged.\n", Ok(())));
}

#[test]
fn what_was_done_is_counted() {
    let shown = show(&plan(), &done(), OutputForm::Pretty);
    let sum = "Done: 1 created, 1 updated, 1 deleted, 4 unchanged, 0 in conflict, 0 failed.\n";
    assert_eq!((shown.out, shown.err.as_str(), shown.result), (format!("{STEPS}{sum}"), "", Ok(())));
}

#[test]
fn every_step_that_was_not_done_is_told_and_fails_the_command() {
    let refused =
        item_refusal(Code::AlreadyExists, Reason::EntryExists, "similar entry already exists".into());
    let outcomes = [
        Outcome::Changed("somebody else deleted it meanwhile".into()),
        Outcome::Refused(refused, Some("e7".into())),
        Outcome::NotTried,
    ];
    let shown = show(&plan(), &outcomes, OutputForm::Pretty);
    assert!(
        shown.err.starts_with(
            "Did not update team.db (spiffe://example.org/db): somebody else deleted it meanwhile\n\
             Failed to create team.web (spiffe://example.org/web) (code: AlreadyExists, msg: \"similar entry already exists\")\n\
             reason: entry_exists\nexisting entry: e7\n  Try: "
        ),
        "{}",
        shown.err
    );
    assert!(
        shown.err.ends_with("Did not get to delete team.old (spiffe://example.org/old)\n"),
        "{}",
        shown.err
    );
    assert!(
        shown.out.ends_with("Done: 0 created, 0 updated, 0 deleted, 4 unchanged, 0 in conflict, 3 failed.\n")
    );
    let failure = shown.result.expect_err("failed");
    assert_eq!((failure.exit(), failure.what()), (1, "3 entries are not as declared"));
    let overwrote =
        [done()[0].clone(), Outcome::Overwrote("somebody else was there".into()), done()[2].clone()];
    assert!(
        show(&plan(), &overwrote, OutputForm::Pretty).result.is_err(),
        "what was written over is told as a failure"
    );
}

#[test]
fn a_conflict_fails_a_dry_run_too() {
    let conflict =
        Conflict { entry: entry("e1", "/web"), what: "it differs".into(), remedy: "choose".into() };
    let plan = Plan { conflicts: vec![conflict], ..Plan::default() };
    let shown = show(&plan, &[], OutputForm::Pretty);
    assert_eq!(shown.err, "Conflict: e1 (spiffe://example.org/web): it differs\n  Try: choose\n");
    assert_eq!(shown.out, "Nothing to do: 0 unchanged, 1 in conflict.\n");
    assert_eq!(shown.result.expect_err("a conflict").exit(), 1);
}

#[test]
fn json_says_the_same_on_one_line() {
    let refused = item_refusal(Code::Internal, Reason::StoreFailed, "no".into());
    let outcomes = [done()[0].clone(), Outcome::Refused(refused, None), done()[2].clone()];
    let shown = show(&plan(), &outcomes, OutputForm::Json);
    assert_eq!((shown.out.lines().count(), shown.err.as_str()), (1, ""));
    assert_eq!(shown.result.expect_err("one failed").exit(), 1, "unlike with SPIRE's commands");
    let json: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(json["dry_run"], false);
    assert_eq!(json["steps"][0]["changes"][0], json!({ "field": "hint", "old": "", "new": "internal" }));
    assert_eq!(json["steps"][0]["outcome"], json!({ "result": "done", "entry_id": "team.db" }));
    assert_eq!(json["steps"][1]["entry"]["spiffe_id"], "spiffe://example.org/web");
    assert_eq!(json["steps"][1]["outcome"]["reason"], "store_failed");
    let dry: Value = serde_json::from_str(&show(&plan(), &[], OutputForm::Json).out).unwrap();
    assert!(dry["dry_run"] == true && dry["steps"][0].get("outcome").is_none());
}
