package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-AGENT-COUNT", countAgents)
	holds("RPC-AGENT-LIST", listAgents)
	holds("RPC-AGENT-GET", getAgent)
	holds("RPC-AGENT-DELETE", deleteAgent)
	holds("RPC-AGENT-BAN", banAgent)
	holds("RPC-AGENT-ATTEST", attestAgent)
	holds("RPC-AGENT-RENEW", renewAgent)
	holds("RPC-AGENT-POST_STATUS", postStatus)
	holds("RPC-AGENT-CREATE_JOIN_TOKEN", createJoinToken)
	holds("WIRE-DENIED_DETAILS", deniedDetails)
	holds("WIRE-AGENT_SEQUENCE", agentSequence)
	holds("WIRE-RATE_LIMITS", rateLimits)
}

func agentsOf(t *testing.T, s *Server) agentv1.AgentClient { return agentv1.NewAgentClient(s.Local(t)) }

// knock calls what every agent in good standing may call.
func knock(t *testing.T, agent *Agent) error {
	_, err := agentv1.NewAgentClient(agent.Conn).PostStatus(Context(t), &agentv1.PostStatusRequest{})
	return err
}

func ban(t *testing.T, s *Server, agent *Agent) {
	t.Helper()
	_, err := agentsOf(t, s).BanAgent(Context(t), &agentv1.BanAgentRequest{Id: agent.ID})
	Must(t, err)
}

func evict(t *testing.T, s *Server, agent *Agent) {
	t.Helper()
	_, err := agentsOf(t, s).DeleteAgent(Context(t), &agentv1.DeleteAgentRequest{Id: agent.ID})
	Must(t, err)
}

type agentFilter = agentv1.ListAgentsRequest_Filter

// agentCases are filters over three agents attested by token, the second of which is banned, and who passes.
func agentCases() []struct {
	filter *agentFilter
	passes []int
} {
	far, past := "2100-01-01 00:00:00 +0000 UTC", "2000-01-01 00:00:00 +0000 UTC"
	return []struct {
		filter *agentFilter
		passes []int
	}{
		{nil, []int{0, 1, 2}},
		{&agentFilter{ByAttestationType: "join_token"}, []int{0, 1, 2}},
		{&agentFilter{ByAttestationType: "x509pop"}, nil},
		{&agentFilter{ByBanned: wrapperspb.Bool(true)}, []int{1}},
		{&agentFilter{ByBanned: wrapperspb.Bool(false)}, []int{0, 2}},
		{&agentFilter{ByCanReattest: wrapperspb.Bool(true)}, nil},
		{&agentFilter{ByCanReattest: wrapperspb.Bool(false)}, []int{0, 1, 2}},
		{&agentFilter{ByExpiresBefore: strings.Replace(far, "UTC", "+00", 1)}, []int{0, 1, 2}},
		{&agentFilter{ByExpiresBefore: strings.Replace(past, "UTC", "+00", 1)}, nil},
		{&agentFilter{ByExpiresBefore: "tomorrow"}, []int{0, 1, 2}},
		{&agentFilter{BySelectorMatch: &types.SelectorMatch{Selectors: selectors("a:1"), Match: types.SelectorMatch_MATCH_ANY}}, nil},
	}
}

func threeAgents(t *testing.T) (*Server, []*Agent) {
	s := Start(t, Settings{Server: "ratelimit { attestation = false }"})
	agents := []*Agent{s.Attest(t), s.Attest(t), s.Attest(t)}
	ban(t, s, agents[1])
	return s, agents
}

func listAgents(t *testing.T) {
	s, agents := threeAgents(t)
	paths := func(answer *agentv1.ListAgentsResponse) []string {
		var found []string
		for _, agent := range answer.Agents {
			found = append(found, agent.Id.Path)
		}
		slices.Sort(found)
		return found
	}
	for _, c := range agentCases() {
		answer, err := agentsOf(t, s).ListAgents(Context(t), &agentv1.ListAgentsRequest{Filter: c.filter})
		Must(t, err)
		var expected []string
		for _, i := range c.passes {
			expected = append(expected, agents[i].ID.Path)
		}
		slices.Sort(expected)
		Equal(t, fmt.Sprintf("who passes %v", c.filter), paths(answer), expected)
	}
	var walked []string
	request := &agentv1.ListAgentsRequest{PageSize: 2, OutputMask: &types.AgentMask{}}
	for page := 0; ; page++ {
		answer, err := agentsOf(t, s).ListAgents(Context(t), request)
		Must(t, err)
		walked = append(walked, paths(answer)...)
		if request.PageToken = answer.NextPageToken; request.PageToken == "" {
			Equal(t, "the number of pages before the empty one", page, 2)
			break
		}
	}
	Equal(t, "the number of agents on all pages", len(walked), 3)
	_, err := agentsOf(t, s).ListAgents(Context(t), &agentv1.ListAgentsRequest{PageSize: 1, PageToken: "?"})
	Refused(t, err, codes.Internal)
	half := &agentFilter{BySelectorMatch: &types.SelectorMatch{Selectors: []*types.Selector{{Type: "a"}}}}
	_, err = agentsOf(t, s).ListAgents(Context(t), &agentv1.ListAgentsRequest{Filter: half})
	Refused(t, err, codes.InvalidArgument, "selector")
}

func countAgents(t *testing.T) {
	s, _ := threeAgents(t)
	for _, c := range agentCases() {
		request := &agentv1.CountAgentsRequest{}
		if c.filter != nil {
			request.Filter = &agentv1.CountAgentsRequest_Filter{
				ByAttestationType: c.filter.ByAttestationType, ByBanned: c.filter.ByBanned, ByCanReattest: c.filter.ByCanReattest,
				ByExpiresBefore: c.filter.ByExpiresBefore, BySelectorMatch: c.filter.BySelectorMatch,
			}
		}
		answer, err := agentsOf(t, s).CountAgents(Context(t), request)
		Must(t, err)
		Equal(t, fmt.Sprintf("the count of %v", c.filter), int(answer.Count), len(c.passes))
	}
}

// badAgentIDs cannot be agents of this server.
func badAgentIDs() []*types.SPIFFEID {
	return []*types.SPIFFEID{nil, ID("/web"), ID("/spire/server"), {TrustDomain: "other.example", Path: "/spire/agent/x/1"}}
}

func getAgent(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	found, err := agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
	Must(t, err)
	Equal(t, "the attestation type", found.AttestationType, "join_token")
	Equal(t, "the serial number", found.X509SvidSerialNumber, agent.Leaf().SerialNumber.String())
	Equal(t, "the expiry", found.X509SvidExpiresAt, agent.Leaf().NotAfter.Unix())
	True(t, "a token works once", !found.CanReattest && !found.Banned)
	found, err = agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID, OutputMask: &types.AgentMask{Banned: true}})
	Must(t, err)
	True(t, "the mask holds", found.AttestationType == "" && found.Id.Path == agent.ID.Path && found.X509SvidExpiresAt == 0)
	for _, id := range badAgentIDs() {
		_, err = agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: id})
		Refused(t, err, codes.InvalidArgument, "agent ID")
	}
	_, err = agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: ID("/spire/agent/x/none")})
	Refused(t, err, codes.NotFound, "agent not found")
}

func deleteAgent(t *testing.T) {
	s := Start(t, Settings{})
	token, err := agentsOf(t, s).CreateJoinToken(Context(t), &agentv1.CreateJoinTokenRequest{Ttl: 600, AgentId: ID("/node")})
	Must(t, err)
	key := NewKey(t)
	answer, err := AttestOver(t, s.Dial(t, nil), "join_token", []byte(token.Value), CSR(t, key, nil))
	Must(t, err)
	identity := ParseIdentity(t, answer.GetResult().Svid, key)
	agent := &Agent{Identity: *identity, Conn: s.Dial(t, identity)}
	create(t, s, entry(agent.ID.Path, "/stays", "a:1"))
	Must(t, knock(t, agent))
	evict(t, s, agent)
	Equal(t, "why it is refused", DenialReason(t, knock(t, agent)), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)
	left, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
	Must(t, err)
	True(t, "the entry that came with the token goes along, others stay", len(left.Entries) == 1 && left.Entries[0].SpiffeId.Path == "/stays")
	for _, id := range badAgentIDs() {
		_, err = agentsOf(t, s).DeleteAgent(Context(t), &agentv1.DeleteAgentRequest{Id: id})
		Refused(t, err, codes.InvalidArgument, "agent ID")
	}
	_, err = agentsOf(t, s).DeleteAgent(Context(t), &agentv1.DeleteAgentRequest{Id: agent.ID})
	Refused(t, err, codes.NotFound, "agent not found")
}

func banAgent(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	ban(t, s, agent)
	Equal(t, "why it is refused", DenialReason(t, knock(t, agent)), types.PermissionDeniedDetails_AGENT_BANNED)
	found, err := agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
	Must(t, err)
	True(t, "it is marked and has no serial number", found.Banned && found.X509SvidSerialNumber == "")
	ban(t, s, agent)
	for _, id := range badAgentIDs() {
		_, err = agentsOf(t, s).BanAgent(Context(t), &agentv1.BanAgentRequest{Id: id})
		Refused(t, err, codes.InvalidArgument, "agent ID")
	}
	_, err = agentsOf(t, s).BanAgent(Context(t), &agentv1.BanAgentRequest{Id: ID("/spire/agent/x/none")})
	Refused(t, err, codes.NotFound, "agent not found")
	// Eviction lifts the ban, as a new token gives a new agent.
	evict(t, s, agent)
	Equal(t, "why it is refused", DenialReason(t, knock(t, agent)), types.PermissionDeniedDetails_AGENT_NOT_ATTESTED)
}

func attestAgent(t *testing.T) {
	s := Start(t, Settings{Server: "ratelimit { attestation = false }\nagent_ttl = \"20m\""})
	conn, csr := s.Dial(t, nil), CSR(t, NewKey(t), nil)
	agent := s.Attest(t)
	Equal(t, "the ID", agent.ID.Path, "/spire/agent/join_token/"+agent.Token)
	s.Verify(t, &agent.Identity)
	lifetime := agent.Leaf().NotAfter.Sub(agent.Leaf().NotBefore)
	True(t, fmt.Sprintf("agent_ttl rules the lifetime, which is %v", lifetime), lifetime > 20*time.Minute && lifetime <= 20*time.Minute+15*time.Second)
	cases := []struct {
		kind, payload, text string
		csr                 []byte
		code                codes.Code
	}{
		{"join_token", agent.Token, "join token does not exist or has already been used", csr, codes.InvalidArgument},
		{"join_token", "unknown", "join token does not exist or has already been used", csr, codes.InvalidArgument},
		{"", "x", "malformed param", csr, codes.InvalidArgument},
		{"join_token", "", "malformed param", csr, codes.InvalidArgument},
		{"join_token", "x", "malformed param", nil, codes.InvalidArgument},
		{"no_such_attestor", "x", "no_such_attestor", csr, codes.FailedPrecondition},
	}
	for _, c := range cases {
		_, err := AttestOver(t, conn, c.kind, []byte(c.payload), c.csr)
		Refused(t, err, c.code, c.text)
	}
	_, err := AttestOver(t, conn, "join_token", []byte(s.JoinToken(t)), []byte("no CSR"))
	Refused(t, err, codes.InvalidArgument, "CSR")
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(Context(t))
	Must(t, err)
	Must(t, stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{ChallengeResponse: []byte("x")}}))
	_, err = stream.Recv()
	Refused(t, err, codes.InvalidArgument, "malformed param")
	token := s.JoinToken(t)
	short, err := agentsOf(t, s).CreateJoinToken(Context(t), &agentv1.CreateJoinTokenRequest{Ttl: 1})
	Must(t, err)
	Eventually(t, "a token of one second is refused", func() bool {
		if time.Now().Unix() <= short.ExpiresAt+1 {
			return false
		}
		_, err = AttestOver(t, conn, "join_token", []byte(short.Value), csr)
		return true
	})
	Refused(t, err, codes.InvalidArgument, "join token")
	answer, err := AttestOver(t, conn, "join_token", []byte(token), csr)
	Must(t, err)
	True(t, "a refused attestation costs no other token", answer.GetResult() != nil && !answer.GetResult().Reattestable)
}

func renew(t *testing.T, agent *Agent) (*Identity, error) {
	t.Helper()
	key := NewKey(t)
	request := &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: CSR(t, key, nil)}}
	answer, err := agentv1.NewAgentClient(agent.Conn).RenewAgent(Context(t), request)
	if err != nil {
		return nil, err
	}
	return ParseIdentity(t, answer.Svid, key), nil
}

func renewAgent(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	client := agentv1.NewAgentClient(agent.Conn)
	_, err := client.RenewAgent(Context(t), &agentv1.RenewAgentRequest{})
	Refused(t, err, codes.InvalidArgument, "params cannot be nil")
	_, err = client.RenewAgent(Context(t), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{}})
	Refused(t, err, codes.InvalidArgument, "missing CSR")
	_, err = client.RenewAgent(Context(t), &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: []byte("x")}})
	Refused(t, err, codes.InvalidArgument, "CSR")
	renewed, err := renew(t, agent)
	Must(t, err)
	s.Verify(t, renewed)
	Equal(t, "the ID", Uri(renewed.ID), Uri(agent.ID))
	Must(t, knock(t, agent))
	found, err := agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
	Must(t, err)
	Equal(t, "the serial number before first use", found.X509SvidSerialNumber, agent.Leaf().SerialNumber.String())
	newer := &Agent{Identity: *renewed, Conn: s.Dial(t, renewed)}
	Must(t, knock(t, newer))
	found, err = agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
	Must(t, err)
	Equal(t, "the serial number after first use", found.X509SvidSerialNumber, renewed.Leaf().SerialNumber.String())
	Equal(t, "why the old SVID is refused", DenialReason(t, knock(t, agent)), types.PermissionDeniedDetails_AGENT_NOT_ACTIVE)
}

func postStatus(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	post := func(version string) error {
		_, err := agentv1.NewAgentClient(agent.Conn).PostStatus(Context(t), &agentv1.PostStatusRequest{AgentVersion: version, CurrentBundleSerial: 7})
		return err
	}
	shown := func() string {
		found, err := agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
		Must(t, err)
		return found.AgentVersion
	}
	Must(t, post("1.15.0"))
	Equal(t, "the version", shown(), "1.15.0")
	Must(t, post(""))
	Equal(t, "the version after a report without one", shown(), "1.15.0")
	Must(t, post(strings.Repeat("v", 255)))
	Refused(t, post(strings.Repeat("v", 256)), codes.InvalidArgument, "agent version")
}

func createJoinToken(t *testing.T) {
	s := Start(t, Settings{})
	make := func(request *agentv1.CreateJoinTokenRequest) (*types.JoinToken, error) {
		return agentsOf(t, s).CreateJoinToken(Context(t), request)
	}
	token, err := make(&agentv1.CreateJoinTokenRequest{Ttl: 60})
	Must(t, err)
	True(t, "a random UUID", len(token.Value) == 36)
	True(t, "its expiry", token.ExpiresAt > time.Now().Unix()+50 && token.ExpiresAt < time.Now().Unix()+70)
	_, err = make(&agentv1.CreateJoinTokenRequest{})
	Refused(t, err, codes.InvalidArgument, "ttl is required")
	_, err = make(&agentv1.CreateJoinTokenRequest{Ttl: -1})
	Refused(t, err, codes.InvalidArgument, "ttl")
	token, err = make(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: "mine", AgentId: ID("/node")})
	Must(t, err)
	Equal(t, "a token of the caller's choice", token.Value, "mine")
	list, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
	Must(t, err)
	alias := list.Entries[0]
	Equal(t, "the parent of its entry", Uri(alias.ParentId), "spiffe://example.org/spire/agent/join_token/mine")
	Equal(t, "the ID of its entry", Uri(alias.SpiffeId), "spiffe://example.org/node")
	Equal(t, "the selectors of its entry", alias.Selectors[0].Type+"|"+alias.Selectors[0].Value, "spiffe_id|spiffe://example.org/spire/agent/join_token/mine")
	_, err = make(&agentv1.CreateJoinTokenRequest{Ttl: 60, Token: "mine"})
	Refused(t, err, Done(codes.AlreadyExists, codes.Internal), "failed to create token")
	for _, id := range []*types.SPIFFEID{ID("/spire/agent/x"), ID(""), {TrustDomain: "other.example", Path: "/x"}} {
		_, err = make(&agentv1.CreateJoinTokenRequest{Ttl: 60, AgentId: id})
		Refused(t, err, codes.InvalidArgument, "agent ID")
	}
}

func deniedDetails(t *testing.T) {
	s := Start(t, Settings{Server: "ratelimit { attestation = false }"})
	banned, evicted, old := s.Attest(t), s.Attest(t), s.Attest(t)
	ban(t, s, banned)
	evict(t, s, evicted)
	renewed, err := renew(t, old)
	Must(t, err)
	Must(t, knock(t, &Agent{Identity: *renewed, Conn: s.Dial(t, renewed)}))
	for agent, reason := range map[*Agent]types.PermissionDeniedDetails_Reason{
		banned:  types.PermissionDeniedDetails_AGENT_BANNED,
		evicted: types.PermissionDeniedDetails_AGENT_NOT_ATTESTED,
		old:     types.PermissionDeniedDetails_AGENT_NOT_ACTIVE,
	} {
		calls := map[string]error{"PostStatus": knock(t, agent)}
		_, calls["GetAuthorizedEntries"] = entryv1.NewEntryClient(agent.Conn).GetAuthorizedEntries(Context(t), &entryv1.GetAuthorizedEntriesRequest{})
		_, calls["RenewAgent"] = renew(t, agent)
		_, calls["BatchNewX509SVID"] = svidv1.NewSVIDClient(agent.Conn).BatchNewX509SVID(Context(t), &svidv1.BatchNewX509SVIDRequest{})
		for method, err := range calls {
			Equal(t, "the reason of "+method, DenialReason(t, err), reason)
			Refused(t, err, codes.PermissionDenied, "authorization denied for method")
		}
		_, err := bundlev1.NewBundleClient(agent.Conn).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
		Must(t, err)
	}
}

// agentSequence is what a SPIRE agent calls, in its order.
func agentSequence(t *testing.T) {
	s := Start(t, Settings{})
	token, key := s.JoinToken(t), NewKey(t)
	// Attestation over TLS without client certificate, and the bundle on the same connection.
	bootstrap := s.Dial(t, nil)
	answer, err := AttestOver(t, bootstrap, "join_token", []byte(token), CSR(t, key, nil))
	Must(t, err)
	bundle, err := bundlev1.NewBundleClient(bootstrap).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
	Must(t, err)
	True(t, "the bundle is there", len(bundle.X509Authorities) > 0 && bundle.TrustDomain == TrustDomain)
	identity := ParseIdentity(t, answer.GetResult().Svid, key)
	s.Verify(t, identity)
	agent := &Agent{Identity: *identity, Conn: s.Dial(t, identity)}
	_, err = agentv1.NewAgentClient(agent.Conn).PostStatus(Context(t), &agentv1.PostStatusRequest{AgentVersion: "1.15.0"})
	Must(t, err)
	const workloads = 520
	var batch []*types.Entry
	for i := range workloads {
		batch = append(batch, entry(agent.ID.Path, fmt.Sprintf("/w/%d", i), "unix:uid:1"))
	}
	create(t, s, batch...)
	Eventually(t, "the agent may have its entries", func() bool { return len(authorizedOf(t, agent, nil)) == workloads })
	ids := syncAsAgents(t, agent, workloads)
	// SVIDs in chunks of at most 500.
	for chunk := range slices.Chunk(ids, 500) {
		request := &svidv1.BatchNewX509SVIDRequest{}
		workloadKey := NewKey(t)
		for _, id := range chunk {
			request.Params = append(request.Params, &svidv1.NewX509SVIDParams{EntryId: id, Csr: CSR(t, workloadKey, []string{"spiffe://example.org/ignored"})})
		}
		signed, err := svidv1.NewSVIDClient(agent.Conn).BatchNewX509SVID(Context(t), request)
		Must(t, err)
		Equal(t, "the number of SVIDs", len(signed.Results), len(chunk))
		for _, result := range signed.Results {
			Item(t, result.Status, codes.OK)
		}
		s.Verify(t, ParseIdentity(t, signed.Results[0].Svid, workloadKey))
	}
	// At half of its life the agent renews; the next connection shows the new SVID, whose first use retires the old one.
	renewed, err := renew(t, agent)
	Must(t, err)
	next := &Agent{Identity: *renewed, Conn: s.Dial(t, renewed)}
	Equal(t, "what the renewed agent may have", len(authorizedOf(t, next, nil)), workloads)
	Equal(t, "why the old SVID is refused", DenialReason(t, knock(t, agent)), types.PermissionDeniedDetails_AGENT_NOT_ACTIVE)
	Must(t, knock(t, next))
}

// syncAsAgents fetches all entries by revision pages and sorted ids, one page at a time, as a SPIRE agent with an empty cache.
func syncAsAgents(t *testing.T, agent *Agent, expected int) []string {
	t.Helper()
	mask := &types.EntryMask{SpiffeId: true, Selectors: true, FederatesWith: true, Admin: true, Downstream: true, RevisionNumber: true, StoreSvid: true, Hint: true, CreatedAt: true}
	stream := syncStream(t, agent, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: mask})
	var ids []string
	for more := true; more; {
		page, err := stream.Recv()
		Must(t, err)
		for _, revision := range page.EntryRevisions {
			ids = append(ids, revision.Id)
		}
		more = page.More
	}
	slices.Sort(ids)
	received := 0
	for chunk := range slices.Chunk(ids, 500) {
		Must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: chunk}))
		for more := true; more; {
			page, err := stream.Recv()
			Must(t, err)
			received += len(page.Entries)
			more = page.More
		}
	}
	Must(t, stream.CloseSend())
	Equal(t, "the number of entries", received, expected)
	return ids
}

func rateLimits(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	csr := CSR(t, NewKey(t), nil)
	request := &svidv1.BatchNewX509SVIDRequest{}
	for range 501 {
		request.Params = append(request.Params, &svidv1.NewX509SVIDParams{EntryId: "x", Csr: csr})
	}
	// More at once than ever fits is refused, not waited for.
	_, err := svidv1.NewSVIDClient(agent.Conn).BatchNewX509SVID(Context(t), request)
	Refused(t, err, codes.ResourceExhausted, "rate (501) exceeds burst size (500)")
	// Within the limit a call waits its turn: of two attestations at once from one address the second comes a second later.
	conn := s.Dial(t, nil)
	AttestOver(t, conn, "join_token", []byte("none"), csr)
	from := time.Now()
	for range 2 {
		_, err = AttestOver(t, conn, "join_token", []byte("none"), csr)
		Refused(t, err, codes.InvalidArgument)
	}
	True(t, "attestations from one address wait for each other", time.Since(from) > 900*time.Millisecond)
	off := Start(t, Settings{Server: "ratelimit { signing = false }"})
	unlimited := off.Attest(t)
	answer, err := svidv1.NewSVIDClient(unlimited.Conn).BatchNewX509SVID(Context(t), request)
	Must(t, err)
	Equal(t, "the number of results without a limit", len(answer.Results), 501)
}
