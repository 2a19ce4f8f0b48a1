package conformance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	authorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	headers "google.golang.org/grpc/metadata"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-WIRE-HEADER", securityHeader)
	holds("AGENT-RPC-WORKLOAD-X509_SVID", workloadX509SVID)
	holds("AGENT-RPC-WORKLOAD-X509_BUNDLES", workloadX509Bundles)
	holds("AGENT-RPC-WORKLOAD-JWT_SVID", workloadJWTSVID)
	holds("AGENT-RPC-WORKLOAD-JWT_BUNDLES", workloadJWTBundles)
	holds("AGENT-RPC-WORKLOAD-VALIDATE_JWT", workloadValidateJWT)
	holds("AGENT-RPC-WORKLOAD-WIT_SVID", workloadWITSVID)
	holds("AGENT-RPC-WORKLOAD-WIT_BUNDLES", workloadWITBundles)
}

// workloadCalls calls each RPC of the Workload API in a form that is refused only for who calls, or how.
func workloadCalls(t *testing.T, agent *AgentProcess) map[string]func(ctx context.Context) error {
	api := agent.Workload(t)
	return map[string]func(ctx context.Context) error{
		"FetchX509SVID":    func(ctx context.Context) error { _, err := First(t, ctx, api.FetchX509SVID); return err },
		"FetchX509Bundles": func(ctx context.Context) error { _, err := First(t, ctx, api.FetchX509Bundles); return err },
		"FetchJWTBundles":  func(ctx context.Context) error { _, err := First(t, ctx, api.FetchJWTBundles); return err },
		"FetchJWTSVID": func(ctx context.Context) error {
			_, err := api.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{"a"}})
			return err
		},
		"ValidateJWTSVID": func(ctx context.Context) error {
			_, err := api.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: "a", Svid: "b"})
			return err
		},
		"FetchWITSVID":    func(ctx context.Context) error { _, err := First(t, ctx, api.FetchWITSVID); return err },
		"FetchWITBundles": func(ctx context.Context) error { _, err := First(t, ctx, api.FetchWITBundles); return err },
	}
}

func securityHeader(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	for name, call := range workloadCalls(t, agent) {
		for what, ctx := range map[string]context.Context{
			"none":    Context(t),
			"false":   headers.AppendToOutgoingContext(Context(t), "workload.spiffe.io", "false"),
			"capital": headers.AppendToOutgoingContext(Context(t), "workload.spiffe.io", "True"),
			"two":     headers.AppendToOutgoingContext(AsWorkload(t), "workload.spiffe.io", "true"),
			"another": headers.AppendToOutgoingContext(Context(t), "broker.spiffe.io", "true"),
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				Refused(t, call(ctx), codes.InvalidArgument, "security header missing from request")
			})
		}
	}
}

func x509IDs(message *workload.X509SVIDResponse) []string {
	var ids []string
	for _, svid := range message.Svids {
		ids = append(ids, svid.SpiffeId)
	}
	return ids
}

func workloadX509SVID(t *testing.T) {
	server := Start(t, Settings{})
	foreign := setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	api := agent.Workload(t)
	_, err := First(t, AsWorkload(t), api.FetchX509SVID)
	Refused(t, err, codes.PermissionDenied, "no identity issued")

	// The order is that of the entries' ids, and so is the default identity.
	second := agent.EntryFor(t, "/second", func(entry *types.Entry) { entry.Id, entry.Hint = "b", "internal" })
	agent.AwaitFetch(t, "/second")
	stream, err := api.FetchX509SVID(AsWorkload(t), &workload.X509SVIDRequest{})
	Must(t, err)
	message := Next(t, stream)
	Equal(t, "the first message", x509IDs(message), []string{"spiffe://example.org/second"})
	Equal(t, "the hint", message.Svids[0].Hint, "internal")
	serial := SVIDOf(t, message.Svids[0]).SerialNumber
	True(t, "no bundle is foreign, nothing is revoked", len(message.FederatedBundles) == 0 && len(message.Crl) == 0)

	first := agent.EntryFor(t, "/first", func(entry *types.Entry) { entry.Id, entry.FederatesWith = "a", []string{"other.example"} })
	both := []string{"spiffe://example.org/first", "spiffe://example.org/second"}
	message = NextThat(t, stream, "both are there", func(one *workload.X509SVIDResponse) bool { return slices.Equal(x509IDs(one), both) })
	Equal(t, "the SVID that was there", SVIDOf(t, message.Svids[1]).SerialNumber.String(), serial.String())
	SVIDOf(t, message.Svids[0])
	Equal(t, "the foreign bundles", slices.Collect(maps.Keys(message.FederatedBundles)), []string{"spiffe://other.example"})
	Equal(t, "the foreign authority", message.FederatedBundles["spiffe://other.example"], foreign.X509Authorities[0].Asn1)

	// A bundle that changes is sent.
	changed := setForeignBundle(t, server, "other.example")
	NextThat(t, stream, "the foreign bundle changes", func(one *workload.X509SVIDResponse) bool {
		return slices.Equal(one.FederatedBundles["spiffe://other.example"], changed.X509Authorities[0].Asn1)
	})
	server.DeleteEntry(t, first)
	message = NextThat(t, stream, "one goes", func(one *workload.X509SVIDResponse) bool { return len(one.Svids) == 1 })
	True(t, "its foreign bundle goes too", len(message.FederatedBundles) == 0)
	server.DeleteEntry(t, second)
	Refused(t, EndOf(stream), codes.PermissionDenied, "no identity issued")

	// Of one hint there is one, and the older entry has it.
	agent.EntryFor(t, "/older", func(entry *types.Entry) { entry.Id, entry.Hint = "d", "same" })
	began := time.Now().Unix()
	Eventually(t, "the next second begins", func() bool { return time.Now().Unix() > began })
	agent.EntryFor(t, "/newer", func(entry *types.Entry) { entry.Id, entry.Hint = "c", "same" })
	hints := map[string]string{}
	Eventually(t, "both entries are known", func() bool {
		hints = map[string]string{}
		message, err := First(t, AsWorkload(t), api.FetchX509SVID)
		for _, svid := range message.GetSvids() {
			hints[svid.SpiffeId] = svid.Hint
		}
		return err == nil && (StockAgent() && len(hints) == 1 || len(hints) == 2)
	})
	Equal(t, "the hint of the older one", hints["spiffe://example.org/older"], "same")
	Equal(t, "the hint of the newer one", hints["spiffe://example.org/newer"], "")
}

func workloadX509Bundles(t *testing.T) {
	server := Start(t, Settings{})
	foreign := setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	api := agent.Workload(t)
	_, err := First(t, AsWorkload(t), api.FetchX509Bundles)
	Refused(t, err, codes.PermissionDenied, "no identity issued")

	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	stream, err := api.FetchX509Bundles(AsWorkload(t), &workload.X509BundlesRequest{})
	Must(t, err)
	own := server.Bundle(t).X509Authorities[0].Asn1
	message := Next(t, stream)
	Equal(t, "the own bundle alone", message.Bundles, map[string][]byte{"spiffe://example.org": own})

	// What has not changed is not sent again: a second identity is no news here, its foreign bundle is.
	agent.EntryFor(t, "/x", nil)
	agent.AwaitFetch(t, "/x")
	federated := agent.EntryFor(t, "/f", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	message = Next(t, stream)
	Equal(t, "both bundles", message.Bundles, map[string][]byte{"spiffe://example.org": own, "spiffe://other.example": foreign.X509Authorities[0].Asn1})
	_, err = authoritiesOf(t, server).PrepareX509Authority(Context(t), &authorityv1.PrepareX509AuthorityRequest{})
	Must(t, err)
	message = Next(t, stream)
	Equal(t, "the authorities that are to come stand behind each other", len(message.Bundles["spiffe://example.org"]), lengthOf(server.Bundle(t).X509Authorities))
	server.DeleteEntry(t, federated)
	message = Next(t, stream)
	Equal(t, "the bundles that are left", slices.Collect(maps.Keys(message.Bundles)), []string{"spiffe://example.org"})
	server.DeleteEntries(t)
	Refused(t, EndOf(stream), codes.PermissionDenied, "no identity issued")
}

func lengthOf(authorities []*types.X509Certificate) (all int) {
	for _, authority := range authorities {
		all += len(authority.Asn1)
	}
	return all
}

func workloadJWTSVID(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{})
	api := agent.Workload(t)
	fetch := func(id string, audience ...string) (*workload.JWTSVIDResponse, error) {
		return api.FetchJWTSVID(AsWorkload(t), &workload.JWTSVIDRequest{SpiffeId: id, Audience: audience})
	}
	_, err := fetch("")
	Refused(t, err, codes.InvalidArgument, "audience must be specified")
	_, err = fetch("no ID", "a")
	Refused(t, err, codes.InvalidArgument, "invalid requested SPIFFE ID: ")
	_, err = fetch("", "a")
	Refused(t, err, codes.PermissionDenied, "no identity issued")

	agent.EntryFor(t, "/second", func(entry *types.Entry) { entry.Id, entry.Hint = "b", "internal" })
	agent.EntryFor(t, "/first", func(entry *types.Entry) { entry.Id = "a" })
	agent.AwaitFetch(t, "/first", "/second")
	answer, err := fetch("", "b", "a")
	Must(t, err)
	Equal(t, "how many", len(answer.Svids), 2)
	for i, id := range []string{"spiffe://example.org/first", "spiffe://example.org/second"} {
		Equal(t, "the ID", answer.Svids[i].SpiffeId, id)
		_, claims := ReadJWT(t, answer.Svids[i].Svid)
		Equal(t, "sub", claims["sub"], any(id))
		audience, _ := claims["aud"].([]any)
		True(t, "both audiences", len(audience) == 2 && slices.Contains(audience, any("a")) && slices.Contains(audience, any("b")))
	}
	Equal(t, "the hint", answer.Svids[1].Hint, "internal")
	one, err := fetch("spiffe://example.org/second", "c")
	Must(t, err)
	Equal(t, "the one that was asked for", len(one.Svids), 1)
	_, err = fetch("spiffe://example.org/third", "a")
	Refused(t, err, codes.PermissionDenied, "no identity issued")

	// One in the cache is given again, and serves while the server is away.
	again, err := fetch("spiffe://example.org/second", "c")
	Must(t, err)
	Equal(t, "the token", again.Svids[0].Svid, one.Svids[0].Svid)
	server.Stop()
	again, err = fetch("spiffe://example.org/second", "c")
	Must(t, err)
	Equal(t, "the token without a server", again.Svids[0].Svid, one.Svids[0].Svid)

	// What the server does not sign cannot be had for now.
	without := StartAgent(t, Start(t, Settings{Server: "disable_jwt_svids = true"}), AgentSettings{})
	without.EntryFor(t, "/w", nil)
	without.AwaitFetch(t, "/w")
	_, err = without.Workload(t).FetchJWTSVID(AsWorkload(t), &workload.JWTSVIDRequest{Audience: []string{"a"}})
	Refused(t, err, codes.Unavailable, "could not fetch JWT-SVID: ")
}

func workloadJWTBundles(t *testing.T) {
	server := Start(t, Settings{})
	setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	api := agent.Workload(t)
	_, err := First(t, AsWorkload(t), api.FetchJWTBundles)
	Refused(t, err, codes.PermissionDenied, "no identity issued")
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	stream, err := api.FetchJWTBundles(AsWorkload(t), &workload.JWTBundlesRequest{})
	Must(t, err)
	message := Next(t, stream)
	Equal(t, "the own bundle alone", slices.Collect(maps.Keys(message.Bundles)), []string{"spiffe://example.org"})
	keys := KeyIDs(t, message.Bundles["spiffe://example.org"])
	key := keys[server.Bundle(t).JwtAuthorities[0].KeyId]
	Equal(t, "the kind of key", key["kty"], any("EC"))
	if _, has := key["use"]; has && StockAgent() {
		t.Error("a key has a use")
	}

	agent.EntryFor(t, "/f", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	message = Next(t, stream)
	Equal(t, "how many bundles", len(message.Bundles), 2)
	Equal(t, "the foreign keys", len(KeyIDs(t, message.Bundles["spiffe://other.example"])), 1)
	_, err = authoritiesOf(t, server).PrepareJWTAuthority(Context(t), &authorityv1.PrepareJWTAuthorityRequest{})
	Must(t, err)
	Equal(t, "the key that is to come is there", len(KeyIDs(t, Next(t, stream).Bundles["spiffe://example.org"])), 2)
	server.DeleteEntries(t)
	Refused(t, EndOf(stream), codes.PermissionDenied, "no identity issued")
}

func workloadValidateJWT(t *testing.T) {
	server := Start(t, Settings{})
	other := Start(t, Settings{TrustDomain: "other.example", Server: `jwt_issuer = "https://other.example"`})
	agent := StartAgent(t, server, AgentSettings{})
	api := agent.Workload(t)
	validate := func(audience, token string) (*workload.ValidateJWTSVIDResponse, error) {
		return api.ValidateJWTSVID(AsWorkload(t), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
	}
	mint := func(s *Server, path string) string {
		return strings.TrimSpace(s.Run(t, "jwt", "mint", "-spiffeID", "spiffe://"+s.TrustDomain+path, "-audience", "a").Succeeds(t).Out)
	}
	_, err := validate("", "x")
	Refused(t, err, codes.InvalidArgument, "audience must be specified")
	_, err = validate("a", "")
	Refused(t, err, codes.InvalidArgument, "svid must be specified")
	_, err = validate("a", "no.token")
	Refused(t, err, codes.InvalidArgument)

	// Nobody needs an identity for it.
	own := mint(server, "/w")
	answer, err := validate("a", own)
	Must(t, err)
	Equal(t, "the ID", answer.SpiffeId, "spiffe://example.org/w")
	claims := answer.Claims.AsMap()
	Equal(t, "aud is a list", claims["aud"], any([]any{"a"}))
	for _, name := range []string{"sub", "exp", "iat"} {
		True(t, "the claim "+name, claims[name] != nil)
	}
	_, err = validate("b", own)
	Refused(t, err, codes.InvalidArgument)

	// A foreign token needs an entry that federates with its trust domain, and says little.
	token := mint(other, "/f")
	_, err = validate("a", token)
	Refused(t, err, codes.InvalidArgument)
	federate(t, server, other)
	agent.EntryFor(t, "/w", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	Eventually(t, "the foreign token is believed", func() bool {
		answer, err = validate("a", token)
		return err == nil
	})
	Equal(t, "the foreign ID", answer.SpiffeId, "spiffe://other.example/f")
	Equal(t, "the claims that are told", slices.Sorted(maps.Keys(answer.Claims.Fields)), []string{"aud", "exp", "sub"})
}

// federate gives a server the bundle of another one.
func federate(t *testing.T, server, other *Server) {
	t.Helper()
	document := other.Run(t, "bundle", "show", "-format", "spiffe").Succeeds(t).Out
	server.RunWith(t, document, "bundle", "set", "-id", "spiffe://"+other.TrustDomain, "-format", "spiffe").Succeeds(t)
}

func witServer(t *testing.T) *Server {
	return Start(t, Settings{Server: "experimental {\n feature_flags = [\"wit-svid\"]\n}"})
}

func workloadWITSVID(t *testing.T) {
	plain := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	plain.EntryFor(t, "/w", nil)
	plain.AwaitFetch(t, "/w")
	_, err := First(t, AsWorkload(t), plain.Workload(t).FetchWITSVID)
	Refused(t, err, codes.Unimplemented)
	if StockAgent() {
		return
	}
	server := witServer(t)
	agent := StartAgent(t, server, AgentSettings{Agent: "experimental {\n feature_flags = [\"wit-svid\"]\n}"})
	api := agent.Workload(t)
	_, err = First(t, AsWorkload(t), api.FetchWITSVID)
	Refused(t, err, codes.PermissionDenied, "no identity issued")
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	stream, err := api.FetchWITSVID(AsWorkload(t), &workload.WITSVIDRequest{})
	Must(t, err)
	svid := Next(t, stream).Svids[0]
	Equal(t, "the ID", svid.SpiffeId, "spiffe://example.org/w")
	_, claims := witClaims(t, server, svid.WitSvid)
	Equal(t, "sub", claims["sub"], any("spiffe://example.org/w"))
	True(t, "there is a key", len(svid.WitSvidKey) > 0)
	agent.EntryFor(t, "/second", nil)
	NextThat(t, stream, "both are there", func(one *workload.WITSVIDResponse) bool { return len(one.Svids) == 2 })
	one, err := api.FetchWITSVID(AsWorkload(t), &workload.WITSVIDRequest{SpiffeId: "spiffe://example.org/second"})
	Must(t, err)
	Equal(t, "the one that was asked for", Next(t, one).Svids[0].SpiffeId, "spiffe://example.org/second")
}

func workloadWITBundles(t *testing.T) {
	plain := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	plain.EntryFor(t, "/w", nil)
	plain.AwaitFetch(t, "/w")
	_, err := First(t, AsWorkload(t), plain.Workload(t).FetchWITBundles)
	Refused(t, err, codes.Unimplemented)
	if StockAgent() {
		return
	}
	server := witServer(t)
	agent := StartAgent(t, server, AgentSettings{})
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	message, err := First(t, AsWorkload(t), agent.Workload(t).FetchWITBundles)
	Must(t, err)
	True(t, "the key is there", KeyIDs(t, []byte(message.Bundles["spiffe://example.org"]))[server.Bundle(t).WitAuthorities[0].KeyId] != nil)
}
