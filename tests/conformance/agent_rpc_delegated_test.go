package conformance

import (
	"context"
	"maps"
	"os"
	"slices"
	"testing"

	delegatedv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-RPC-DELEGATED-X509_SVIDS", delegatedX509SVIDs)
	holds("AGENT-RPC-DELEGATED-X509_BUNDLES", delegatedX509Bundles)
	holds("AGENT-RPC-DELEGATED-JWT_SVIDS", delegatedJWTSVIDs)
	holds("AGENT-RPC-DELEGATED-JWT_BUNDLES", delegatedJWTBundles)
}

// delegation is an agent on which whoever runs the tests may become the delegate.
func delegation(t *testing.T) (*Server, *AgentProcess, delegatedv1.DelegatedIdentityClient) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: AdminLine + `authorized_delegates = ["spiffe://example.org/delegate"]`})
	return server, agent, delegatedv1.NewDelegatedIdentityClient(agent.Admin(t))
}

// refusesOthers checks that a call is refused to who has no identity, then to who has another one, and makes the delegate.
func refusesOthers(t *testing.T, agent *AgentProcess, call func(ctx context.Context) error) string {
	t.Helper()
	Refused(t, call(Context(t)), codes.PermissionDenied, "no identity issued")
	agent.EntryFor(t, "/other", nil)
	agent.AwaitFetch(t, "/other")
	Refused(t, call(Context(t)), codes.PermissionDenied, "caller not configured as an authorized delegate")
	id := agent.EntryFor(t, "/delegate", nil)
	agent.AwaitFetch(t, "/delegate")
	return id
}

func other(text string) func(*types.Entry) {
	return func(entry *types.Entry) { entry.Selectors = selectors(text) }
}

func badSubjects() map[string]struct {
	selectors []*types.Selector
	pid       int32
} {
	type subject = struct {
		selectors []*types.Selector
		pid       int32
	}
	return map[string]subject{
		"must provide either selectors or non-zero PID, but not both":  {},
		"must provide either selectors or non-zero PID, but not both ": {selectors("a:1"), 1},
		"could not parse provided selectors":                           {[]*types.Selector{{Type: "a:b", Value: "c"}}, 0},
	}
}

func delegatedX509SVIDs(t *testing.T) {
	server, agent, client := delegation(t)
	setForeignBundle(t, server, "other.example")
	asked := &delegatedv1.SubscribeToX509SVIDsRequest{Selectors: selectors("a:1", "a:2")}
	delegate := refusesOthers(t, agent, func(ctx context.Context) error {
		stream, err := client.SubscribeToX509SVIDs(ctx, asked)
		Must(t, err)
		_, err = stream.Recv()
		return err
	})
	for text, subject := range badSubjects() {
		stream, err := client.SubscribeToX509SVIDs(Context(t), &delegatedv1.SubscribeToX509SVIDsRequest{Selectors: subject.selectors, Pid: subject.pid})
		Must(t, err)
		_, err = stream.Recv()
		Refused(t, err, codes.InvalidArgument, text[:30])
	}
	// Nobody is refused for having no identity: the list is empty.
	stream, err := client.SubscribeToX509SVIDs(Context(t), asked)
	Must(t, err)
	Equal(t, "at first", len(Next(t, stream).X509Svids), 0)
	agent.EntryFor(t, "/w", func(entry *types.Entry) {
		entry.Selectors, entry.Hint, entry.FederatesWith = selectors("a:1"), "h", []string{"other.example"}
	})
	message := NextThat(t, stream, "there is one", func(one *delegatedv1.SubscribeToX509SVIDsResponse) bool { return len(one.X509Svids) == 1 })
	svid := message.X509Svids[0]
	Equal(t, "the ID", Uri(svid.X509Svid.Id), "spiffe://example.org/w")
	Equal(t, "the hint", svid.X509Svid.Hint, "h")
	Equal(t, "whom it federates with", message.FederatesWith, []string{"spiffe://other.example"})
	leaf := Vouched(t, "spiffe://example.org/w", slices.Concat(svid.X509Svid.CertChain...), svid.X509SvidKey, server.Bundle(t).X509Authorities[0].Asn1)
	Equal(t, "its end", svid.X509Svid.ExpiresAt, leaf.NotAfter.Unix())

	// What gives power over others is withheld.
	agent.EntryFor(t, "/admin", func(entry *types.Entry) { entry.Selectors, entry.Admin = selectors("a:1"), true })
	agent.EntryFor(t, "/below", func(entry *types.Entry) { entry.Selectors, entry.Downstream = selectors("a:1"), true })
	agent.EntryFor(t, "/last", other("a:2"))
	ids := func(message *delegatedv1.SubscribeToX509SVIDsResponse) (ids []string) {
		for _, one := range message.X509Svids {
			ids = append(ids, one.X509Svid.Id.Path)
		}
		slices.Sort(ids)
		return ids
	}
	NextThat(t, stream, "two are there and no more", func(one *delegatedv1.SubscribeToX509SVIDsResponse) bool {
		return slices.Equal(ids(one), []string{"/last", "/w"})
	})

	// A process is attested by the agent.
	ofProcess, err := client.SubscribeToX509SVIDs(Context(t), &delegatedv1.SubscribeToX509SVIDsRequest{Pid: int32(os.Getpid())})
	Must(t, err)
	NextThat(t, ofProcess, "the identities of this process are there", func(one *delegatedv1.SubscribeToX509SVIDsResponse) bool {
		return slices.Equal(ids(one), []string{"/delegate", "/other"})
	})
	server.DeleteEntry(t, delegate)
	agent.EntryFor(t, "/more", other("a:2"))
	Refused(t, EndOf(stream), codes.PermissionDenied, "caller not configured as an authorized delegate")
}

func delegatedX509Bundles(t *testing.T) {
	server, agent, client := delegation(t)
	foreign := setForeignBundle(t, server, "other.example")
	refusesOthers(t, agent, func(ctx context.Context) error {
		stream, err := client.SubscribeToX509Bundles(ctx, &delegatedv1.SubscribeToX509BundlesRequest{})
		Must(t, err)
		_, err = stream.Recv()
		return err
	})
	stream, err := client.SubscribeToX509Bundles(Context(t), &delegatedv1.SubscribeToX509BundlesRequest{})
	Must(t, err)
	own := server.Bundle(t).X509Authorities[0].Asn1
	Equal(t, "the own bundle", Next(t, stream).CaCertificates, map[string][]byte{"spiffe://example.org": own})
	// All that the agent knows, whosever entry it is for.
	agent.EntryFor(t, "/w", func(entry *types.Entry) {
		entry.Selectors, entry.FederatesWith = selectors("a:1"), []string{"other.example"}
	})
	both := map[string][]byte{"spiffe://example.org": own, "spiffe://other.example": foreign.X509Authorities[0].Asn1}
	Equal(t, "both", Next(t, stream).CaCertificates, both)
}

func delegatedJWTSVIDs(t *testing.T) {
	_, agent, client := delegation(t)
	fetch := func(subject []*types.Selector, pid int32, audience ...string) (*delegatedv1.FetchJWTSVIDsResponse, error) {
		return client.FetchJWTSVIDs(Context(t), &delegatedv1.FetchJWTSVIDsRequest{Selectors: subject, Pid: pid, Audience: audience})
	}
	_, err := fetch(selectors("a:1"), 0)
	Refused(t, err, codes.InvalidArgument, "audience must be specified")
	refusesOthers(t, agent, func(ctx context.Context) error {
		_, err := fetch(selectors("a:1"), 0, "x")
		return err
	})
	for text, subject := range badSubjects() {
		_, err := fetch(subject.selectors, subject.pid, "x")
		Refused(t, err, codes.InvalidArgument, text[:30])
	}
	_, err = fetch(selectors("a:1"), 0, "x")
	Refused(t, err, codes.PermissionDenied, "no identity issued")
	agent.EntryFor(t, "/admin", func(entry *types.Entry) { entry.Selectors, entry.Admin = selectors("a:1"), true })
	agent.EntryFor(t, "/w", func(entry *types.Entry) { entry.Selectors, entry.Hint = selectors("a:1"), "h" })
	var answer *delegatedv1.FetchJWTSVIDsResponse
	Eventually(t, "there is a token", func() bool {
		answer, err = fetch(selectors("a:1"), 0, "x")
		return err == nil
	})
	Equal(t, "how many", len(answer.Svids), 1)
	_, claims := ReadJWT(t, answer.Svids[0].Token)
	Equal(t, "sub", claims["sub"], any("spiffe://example.org/w"))
	Equal(t, "the ID", Uri(answer.Svids[0].Id), "spiffe://example.org/w")
	Equal(t, "the hint", answer.Svids[0].Hint, "h")
	Equal(t, "exp and iat", []any{claims["exp"], claims["iat"]}, []any{float64(answer.Svids[0].ExpiresAt), float64(answer.Svids[0].IssuedAt)})
	ofProcess, err := fetch(nil, int32(os.Getpid()), "x")
	Must(t, err)
	Equal(t, "the tokens of this process", len(ofProcess.Svids), 2)
}

func delegatedJWTBundles(t *testing.T) {
	server, agent, client := delegation(t)
	setForeignBundle(t, server, "other.example")
	refusesOthers(t, agent, func(ctx context.Context) error {
		stream, err := client.SubscribeToJWTBundles(ctx, &delegatedv1.SubscribeToJWTBundlesRequest{})
		Must(t, err)
		_, err = stream.Recv()
		return err
	})
	stream, err := client.SubscribeToJWTBundles(Context(t), &delegatedv1.SubscribeToJWTBundlesRequest{})
	Must(t, err)
	message := Next(t, stream)
	Equal(t, "the own bundle", slices.Collect(maps.Keys(message.Bundles)), []string{"spiffe://example.org"})
	True(t, "with its key", KeyIDs(t, message.Bundles["spiffe://example.org"])[server.Bundle(t).JwtAuthorities[0].KeyId] != nil)
	agent.EntryFor(t, "/w", func(entry *types.Entry) {
		entry.Selectors, entry.FederatesWith = selectors("a:1"), []string{"other.example"}
	})
	NextThat(t, stream, "the foreign keys are there", func(one *delegatedv1.SubscribeToJWTBundlesResponse) bool {
		return len(one.Bundles) == 2 && len(KeyIDs(t, one.Bundles["spiffe://other.example"])) == 1
	})
}
