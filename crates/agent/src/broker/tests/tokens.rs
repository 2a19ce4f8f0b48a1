//! Tokens for a workload.

use super::*;

async fn fetch(
    client: &ApiClient<Channel>,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<Vec<wire::Jwtsvid>, Status> {
    let audience = audience.iter().map(ToString::to_string).collect();
    let asked = FetchJwtsvidRequest { reference: me(), audience, spiffe_id: spiffe_id.into() };
    client.clone().fetch_jwtsvid(with_header(asked)).await.map(|answer| answer.into_inner().svids)
}

fn names(svids: &[wire::Jwtsvid]) -> Vec<&str> {
    svids.iter().map(|one| one.spiffe_id.as_str()).collect()
}

#[tokio::test]
async fn bap_70_bap_71_bap_72_tokens_are_for_the_audience_and_for_all_identities_or_the_one_asked_for() {
    let rig = rig();
    rig.publish(vec![mine("a"), mine("b"), mine("c")]);
    let client = rig.client(ANYHOW).await;
    let all = fetch(&client, &["x", "y"], "").await.unwrap();
    let expected: Vec<_> = ["a", "b", "c"].map(|id| format!("spiffe://prod.example/{id}")).into();
    assert_eq!(names(&all), expected);
    assert!(rig.issuer.asked.borrow().iter().all(|(_, audience)| audience == &["x", "y"]));
    let one = fetch(&client, &["x", "y"], "spiffe://prod.example/b").await.unwrap();
    assert_eq!(names(&one), ["spiffe://prod.example/b"]);
    assert_eq!(one[0].svid, all[1].svid, "from the agent's cache");
    let other = fetch(&client, &["x"], "spiffe://prod.example/other").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn bap_74_bap_75_hints_of_tokens_are_unique() {
    let rig = rig();
    let hinted = |id: &str| RegistrationEntry { hint: "web".parse().unwrap(), ..mine(id) };
    rig.publish(vec![hinted("a"), hinted("b")]);
    let all = fetch(&rig.client(ANYHOW).await, &["x"], "").await.unwrap();
    assert_eq!(all.iter().map(|one| one.hint.as_str()).collect::<Vec<_>>(), ["web", ""]);
}

#[tokio::test]
async fn bap_41_a_wrong_audience_or_spiffe_id_is_an_invalid_argument() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    for (audience, spiffe_id) in [(&[][..], ""), (&[""], ""), (&["x"], "not-an-id")] {
        let refused = fetch(&client, audience, spiffe_id).await.unwrap_err();
        assert_eq!(refusal_of(&refused), expected(Code::InvalidArgument, "", Reason::BadRequest));
    }
    assert_eq!(rig.issuer.calls(), 0);
}

#[tokio::test]
async fn tokens_of_administrators_are_given_as_spire_gives_them() {
    let rig = rig();
    rig.publish(vec![RegistrationEntry { admin: true, ..mine("a") }]);
    assert_eq!(fetch(&rig.client(ANYHOW).await, &["x"], "").await.unwrap().len(), 1);
}
