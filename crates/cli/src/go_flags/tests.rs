use clap::Subcommand;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "tool", subcommand_required = true)]
struct Tool {
    #[command(subcommand)]
    command: Group,
}

#[derive(Debug, Subcommand)]
enum Group {
    /// Things.
    #[command(subcommand_required = true)]
    Thing {
        #[command(subcommand)]
        command: Thing,
    },
}

#[derive(Debug, Subcommand)]
enum Thing {
    /// Makes one.
    Make(Make),
}

#[derive(Debug, clap::Args)]
struct Make {
    #[arg(long = "spiffeID")]
    spiffe_id: Option<String>,
    #[arg(long = "selector")]
    selectors: Vec<String>,
    #[arg(long = "ttl", default_value_t = 600)]
    ttl: i64,
    #[arg(long = "node")]
    node: bool,
}

fn run(line: &str) -> Result<Make, (u8, String)> {
    let args = std::iter::once("tool").chain(line.split_whitespace()).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    match parse::<Tool>(args, &mut out, &mut err) {
        Ok(Tool { command: Group::Thing { command: Thing::Make(make) } }) => Ok(make),
        Err(code) => {
            out.extend(err);
            Err((code, String::from_utf8(out).unwrap()))
        }
    }
}

fn make(flags: &str) -> Make {
    run(&format!("thing make {flags}")).unwrap_or_else(|(_, text)| panic!("{flags}: {text}"))
}

fn refused(line: &str, code: u8, part: &str) {
    let (got, text) = run(line).expect_err(line);
    assert_eq!(got, code, "{line}: {text}");
    assert!(text.contains(part), "{line}: {text}");
}

#[test]
fn one_dash_two_dashes_and_equals_mean_the_same() {
    for flags in ["-spiffeID x", "--spiffeID x", "-spiffeID=x", "--spiffeID=x"] {
        assert_eq!(make(flags).spiffe_id.as_deref(), Some("x"), "{flags}");
    }
}

#[test]
fn repeatable_flags_keep_their_order() {
    assert_eq!(make("-selector a:1 --selector=b:2 -selector c:3").selectors, ["a:1", "b:2", "c:3"]);
}

#[test]
fn the_last_of_a_single_flag_wins() {
    assert_eq!(make("-spiffeID a -spiffeID b").spiffe_id.as_deref(), Some("b"));
}

#[test]
fn switches_stand_alone_or_take_equals() {
    for (flags, node) in
        [("", false), ("-node", true), ("--node", true), ("-node=false", false), ("-node=1", true)]
    {
        assert_eq!(make(flags).node, node, "{flags}");
    }
    assert_eq!(make("-node -spiffeID x").spiffe_id.as_deref(), Some("x"));
}

#[test]
fn values_may_start_with_a_dash_or_hold_equals() {
    assert_eq!(make("-ttl -5").ttl, -5);
    assert_eq!(make("-spiffeID --node").spiffe_id.as_deref(), Some("--node"));
    assert_eq!(make("-selector k=v=w").selectors, ["k=v=w"]);
    assert_eq!(make("-spiffeID=").spiffe_id.as_deref(), Some(""));
}

#[test]
fn misused_flags_exit_with_1_and_name_the_flag() {
    refused("thing make -spiffeId x", 1, "--spiffeID");
    refused("thing make -nosuch", 1, "--nosuch");
    refused("thing make -spiffeID", 1, "--spiffeID");
    refused("thing make -ttl soon", 1, "soon");
    refused("thing make -node false", 1, "false");
    refused("thing make -node=maybe", 1, "maybe");
    refused("thing make stray", 1, "stray");
    refused("thing make - x", 1, "'-'");
    refused("thing make -- -spiffeID", 1, "-spiffeID");
}

#[test]
fn an_unknown_word_below_a_group_exits_with_1() {
    refused("thing", 1, "Usage");
    refused("thing nosuch", 1, "nosuch");
    refused("-nosuch", 1, "--nosuch");
}

#[test]
fn an_unknown_or_missing_first_word_exits_with_127() {
    refused("nosuch", 127, "nosuch");
    refused("", 127, "Usage");
}

#[test]
fn help_is_no_failure() {
    for line in ["-h", "--help", "-help", "thing make -h", "thing --help"] {
        refused(line, 0, "Usage");
    }
}

#[test]
fn the_error_line_starts_as_spires_does() {
    let (_, text) = run("thing make -nosuch").expect_err("unknown flag");
    assert!(text.starts_with("Error: "), "{text}");
}

#[test]
fn bytes_that_are_no_text_are_refused_and_not_a_panic() {
    let bad = OsString::from_vec(vec![b'-', 0xff, b'=', 0xfe]);
    let args = ["tool", "thing", "make"].map(OsString::from).into_iter().chain([bad]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(parse::<Tool>(args, &mut out, &mut err).expect_err("not text"), 1);
}
