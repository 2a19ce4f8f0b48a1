package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-ENTRY-COUNT", countEntries)
	holds("RPC-ENTRY-LIST", listEntries)
	holds("RPC-ENTRY-GET", getEntry)
	holds("RPC-ENTRY-CREATE", createEntries)
	holds("RPC-ENTRY-UPDATE", updateEntries)
	holds("RPC-ENTRY-DELETE", deleteEntries)
	holds("RPC-ENTRY-AUTHORIZED", authorizedEntries)
	holds("RPC-ENTRY-SYNC", syncEntries)
}

func entriesOf(t *testing.T, s *Server) entryv1.EntryClient {
	return entryv1.NewEntryClient(s.Local(t))
}

// selectors reads texts like unix:uid:1.
func selectors(texts ...string) []*types.Selector {
	var list []*types.Selector
	for _, text := range texts {
		kind, value, _ := strings.Cut(text, ":")
		list = append(list, &types.Selector{Type: kind, Value: value})
	}
	return list
}

func entry(parent, path string, texts ...string) *types.Entry {
	return &types.Entry{ParentId: ID(parent), SpiffeId: ID(path), Selectors: selectors(texts...)}
}

// create registers entries, all of which must be taken.
func create(t *testing.T, s *Server, entries ...*types.Entry) []*types.Entry {
	t.Helper()
	answer, err := entriesOf(t, s).BatchCreateEntry(Context(t), &entryv1.BatchCreateEntryRequest{Entries: entries})
	Must(t, err)
	var taken []*types.Entry
	for _, result := range answer.Results {
		Item(t, result.Status, codes.OK)
		taken = append(taken, result.Entry)
	}
	return taken
}

// stock is a server with five entries, whose ids are a to e.
func stock(t *testing.T) *Server {
	s := Start(t, Settings{})
	setForeignBundle(t, s, "other.example")
	setForeignBundle(t, s, "third.example")
	stocked := map[string]*types.Entry{
		"a": entry("/n1", "/web", "s:1"),
		"b": entry("/n1", "/db", "s:1", "s:2"),
		"c": entry("/n2", "/web", "s:2"),
		"d": entry("/n2", "/db", "s:1", "s:2", "s:3"),
		"e": entry("/n2", "/web", "s:3"),
	}
	stocked["b"].Hint = "h"
	stocked["c"].Downstream = true
	stocked["d"].FederatesWith = []string{"other.example"}
	stocked["e"].FederatesWith = []string{"other.example", "third.example"}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		stocked[id].Id = id
		create(t, s, stocked[id])
	}
	return s
}

type entryFilter = entryv1.ListEntriesRequest_Filter

func bySelectors(match types.SelectorMatch_MatchBehavior, texts ...string) *entryFilter {
	return &entryFilter{BySelectors: &types.SelectorMatch{Match: match, Selectors: selectors(texts...)}}
}

func byFederation(match types.FederatesWithMatch_MatchBehavior, names ...string) *entryFilter {
	return &entryFilter{ByFederatesWith: &types.FederatesWithMatch{Match: match, TrustDomains: names}}
}

// filterCases are filters with the ids that pass them; listing and counting share them.
func filterCases() map[string][]*entryFilter {
	return map[string][]*entryFilter{
		"abcde": {nil, {}, {ByHint: wrapperspb.String("")}, {ByDownstream: wrapperspb.Bool(false)}},
		"ace":   {{BySpiffeId: ID("/web")}},
		"cde":   {{ByParentId: ID("/n2")}},
		"ce":    {{ByParentId: ID("/n2"), BySpiffeId: ID("/web")}},
		"b": {
			{ByHint: wrapperspb.String("h")},
			bySelectors(types.SelectorMatch_MATCH_EXACT, "s:2", "s:1"),
		},
		"c":   {{ByDownstream: wrapperspb.Bool(true)}},
		"abc": {bySelectors(types.SelectorMatch_MATCH_SUBSET, "s:1", "s:2")},
		"bd":  {bySelectors(types.SelectorMatch_MATCH_SUPERSET, "s:1", "s:2")},
		"abd": {bySelectors(types.SelectorMatch_MATCH_ANY, "s:1", "s:9")},
		"d": {
			byFederation(types.FederatesWithMatch_MATCH_EXACT, "other.example"),
			byFederation(types.FederatesWithMatch_MATCH_SUBSET, "other.example"),
		},
		"de": {
			byFederation(types.FederatesWithMatch_MATCH_SUPERSET, "other.example"),
			byFederation(types.FederatesWithMatch_MATCH_SUBSET, "other.example", "third.example"),
		},
		"e": {
			byFederation(types.FederatesWithMatch_MATCH_ANY, "third.example"),
			byFederation(types.FederatesWithMatch_MATCH_EXACT, "third.example", "other.example"),
		},
		"": {
			{BySpiffeId: ID("/none")},
			{ByHint: wrapperspb.String("x")},
			bySelectors(types.SelectorMatch_MATCH_EXACT, "s:9"),
			bySelectors(types.SelectorMatch_MATCH_SUPERSET, "s:1", "s:9"),
			byFederation(types.FederatesWithMatch_MATCH_ANY, "fourth.example"),
		},
	}
}

// badFilters are refused by listing and counting, with a text that names the field.
func badFilters() map[string]*entryFilter {
	return map[string]*entryFilter{
		"SPIFFE ID":          {BySpiffeId: &types.SPIFFEID{TrustDomain: "other.example", Path: "/web"}},
		"parent ID":          {ByParentId: &types.SPIFFEID{TrustDomain: "other.example", Path: "/web"}},
		"empty selector":     bySelectors(types.SelectorMatch_MATCH_EXACT),
		"selector":           {BySelectors: &types.SelectorMatch{Selectors: []*types.Selector{{Type: "s"}}}},
		"federates with":     byFederation(types.FederatesWithMatch_MATCH_EXACT, "not a name"),
		"empty trust domain": byFederation(types.FederatesWithMatch_MATCH_EXACT),
	}
}

func idsOf(entries []*types.Entry) string {
	var ids []string
	for _, entry := range entries {
		ids = append(ids, entry.Id)
	}
	slices.Sort(ids)
	return strings.Join(ids, "")
}

func listEntries(t *testing.T) {
	s := stock(t)
	client := entriesOf(t, s)
	for expected, filters := range filterCases() {
		for _, filter := range filters {
			answer, err := client.ListEntries(Context(t), &entryv1.ListEntriesRequest{Filter: filter})
			Must(t, err)
			Equal(t, fmt.Sprintf("what %v lets through", filter), idsOf(answer.Entries), expected)
			Equal(t, "the token of a list without pages", answer.NextPageToken, "")
		}
	}
	for text, filter := range badFilters() {
		_, err := client.ListEntries(Context(t), &entryv1.ListEntriesRequest{Filter: filter})
		Refused(t, err, codes.InvalidArgument, text)
	}
}

func countEntries(t *testing.T) {
	s := stock(t)
	client := entriesOf(t, s)
	convert := func(filter *entryFilter) *entryv1.CountEntriesRequest_Filter {
		if filter == nil {
			return nil
		}
		return &entryv1.CountEntriesRequest_Filter{
			BySpiffeId: filter.BySpiffeId, ByParentId: filter.ByParentId, BySelectors: filter.BySelectors,
			ByFederatesWith: filter.ByFederatesWith, ByHint: filter.ByHint, ByDownstream: filter.ByDownstream,
		}
	}
	for expected, filters := range filterCases() {
		for _, filter := range filters {
			answer, err := client.CountEntries(Context(t), &entryv1.CountEntriesRequest{Filter: convert(filter)})
			Must(t, err)
			Equal(t, fmt.Sprintf("the count of %v", filter), int(answer.Count), len(expected))
		}
	}
	for text, filter := range badFilters() {
		_, err := client.CountEntries(Context(t), &entryv1.CountEntriesRequest{Filter: convert(filter)})
		Refused(t, err, codes.InvalidArgument, text)
	}
}

func getEntry(t *testing.T) {
	s := stock(t)
	client := entriesOf(t, s)
	found, err := client.GetEntry(Context(t), &entryv1.GetEntryRequest{Id: "d"})
	Must(t, err)
	Equal(t, "the SPIFFE ID", Uri(found.SpiffeId), "spiffe://example.org/db")
	Equal(t, "what it federates with", found.FederatesWith, []string{"other.example"})
	True(t, "it knows when it was made", found.CreatedAt > 0)
	found, err = client.GetEntry(Context(t), &entryv1.GetEntryRequest{Id: "d", OutputMask: &types.EntryMask{Selectors: true}})
	Must(t, err)
	True(t, "only what the mask names comes back", len(found.Selectors) == 3 && found.SpiffeId == nil && found.CreatedAt == 0)
	Equal(t, "the id, which always comes back,", found.Id, "d")
	_, err = client.GetEntry(Context(t), &entryv1.GetEntryRequest{})
	Refused(t, err, codes.InvalidArgument, "missing ID")
	_, err = client.GetEntry(Context(t), &entryv1.GetEntryRequest{Id: "none"})
	Refused(t, err, codes.NotFound, "entry not found")
}

func createEntries(t *testing.T) {
	s := Start(t, Settings{})
	setForeignBundle(t, s, "other.example")
	full := &types.Entry{
		Id: "Custom.id_1-2", ParentId: ID("/spire/agent/x/1"), SpiffeId: ID("/web"), Selectors: selectors("unix:uid:1", "unix:gid:2"),
		X509SvidTtl: 60, JwtSvidTtl: 30, FederatesWith: []string{"other.example"}, Admin: true, Downstream: true, ExpiresAt: 4102444800,
		DnsNames: []string{"web", "*.web.example"}, Hint: "internal", RevisionNumber: 17, CreatedAt: 5,
		AdditionalAttributes: &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true},
	}
	taken := create(t, s, full)[0]
	True(t, "revision number and time of creation are the server's", taken.RevisionNumber == 0 && taken.CreatedAt > 5)
	expected := proto.Clone(full).(*types.Entry)
	expected.RevisionNumber, expected.CreatedAt = 0, taken.CreatedAt
	// SPIRE answers with names and selectors in an order of its own.
	sortSelectors(taken, expected)
	slices.Sort(taken.DnsNames)
	slices.Sort(expected.DnsNames)
	if !proto.Equal(taken, expected) {
		t.Errorf("not as it was sent: %v, sent %v", taken, expected)
	}
	twin := entry("/spire/agent/x/1", "/web", "unix:gid:2", "unix:uid:1")
	bad := func(change func(*types.Entry)) *types.Entry {
		wrong := entry("/n", "/bad", "a:1")
		change(wrong)
		return wrong
	}
	cases := []struct {
		entry *types.Entry
		code  codes.Code
		text  string
	}{
		{entry("/n", "/first", "a:1"), codes.OK, ""},
		{twin, codes.AlreadyExists, "similar entry already exists"},
		{bad(func(e *types.Entry) { e.Id = "Custom.id_1-2" }), codes.AlreadyExists, "failed to create entry"},
		{bad(func(e *types.Entry) { e.Id = "a/b" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.Id = strings.Repeat("a", 256) }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.ParentId = nil }), codes.InvalidArgument, "failed to convert entry"},
		{bad(func(e *types.Entry) { e.ParentId.TrustDomain = "other.example" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.ParentId.Path = "" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.SpiffeId.Path = "" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.SpiffeId.Path = "/spire/x" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.SpiffeId.TrustDomain = "other.example" }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.Selectors = nil }), codes.InvalidArgument, "selector"},
		{bad(func(e *types.Entry) { e.Selectors[0].Value = "" }), codes.InvalidArgument, "selector"},
		{bad(func(e *types.Entry) { e.Selectors[0].Type = "a:b" }), codes.InvalidArgument, "selector"},
		{bad(func(e *types.Entry) { e.DnsNames = []string{"a..b"} }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.DnsNames = []string{"a.*.b"} }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.DnsNames = []string{"end."} }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.DnsNames = []string{"ümlaut"} }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.X509SvidTtl = -1 }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.JwtSvidTtl = -1 }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.Hint = strings.Repeat("h", 1025) }), codes.InvalidArgument, "int"},
		{bad(func(e *types.Entry) { e.FederatesWith = []string{"not a name"} }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.FederatesWith = []string{"unknown.example"} }), codes.Internal, "unable to find federated bundle"},
		{bad(func(e *types.Entry) { e.StoreSvid, e.Selectors = true, selectors("a:1", "b:2") }), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) {
			e.StoreSvid, e.AdditionalAttributes = true, &types.Entry_AdditionalAttributes{DisableX509SvidPrefetch: true}
		}), codes.InvalidArgument, ""},
		{bad(func(e *types.Entry) { e.StoreSvid, e.Selectors = true, selectors("a:1", "a:2") }), codes.OK, ""},
	}
	batch := &entryv1.BatchCreateEntryRequest{}
	for _, c := range cases {
		batch.Entries = append(batch.Entries, c.entry)
	}
	answer, err := entriesOf(t, s).BatchCreateEntry(Context(t), batch)
	Must(t, err)
	Equal(t, "the number of results", len(answer.Results), len(cases))
	for i, result := range answer.Results {
		Item(t, result.Status, cases[i].code, cases[i].text)
		comesBack := cases[i].code == codes.OK || cases[i].entry == twin
		Equal(t, fmt.Sprintf("that entry %d comes back", i), result.Entry != nil, comesBack)
	}
	Equal(t, "the entry that is similar", answer.Results[1].Entry.GetId(), full.Id)
	True(t, "an id is made up", len(answer.Results[0].Entry.GetId()) == 36)
}

func sortSelectors(entries ...*types.Entry) {
	for _, entry := range entries {
		slices.SortFunc(entry.Selectors, func(a, b *types.Selector) int { return strings.Compare(a.String(), b.String()) })
	}
}

func updateEntries(t *testing.T) {
	s := Start(t, Settings{})
	first := entry("/n", "/web", "a:1")
	first.Id, first.Hint, first.X509SvidTtl, first.DnsNames = "first", "old", 60, []string{"web"}
	second := entry("/n", "/db", "a:1")
	second.Id = "second"
	create(t, s, first, second)
	update := func(input, output *types.EntryMask, entries ...*types.Entry) []*entryv1.BatchUpdateEntryResponse_Result {
		request := &entryv1.BatchUpdateEntryRequest{Entries: entries, InputMask: input, OutputMask: output}
		answer, err := entriesOf(t, s).BatchUpdateEntry(Context(t), request)
		Must(t, err)
		return answer.Results
	}
	// Only what the mask names is read; what it does not name may even be wrong.
	masked := update(&types.EntryMask{Hint: true}, nil, &types.Entry{Id: "first", Hint: "new", X509SvidTtl: -5})[0]
	Item(t, masked.Status, codes.OK)
	True(t, "the rest stays", masked.Entry.Hint == "new" && masked.Entry.X509SvidTtl == 60 && len(masked.Entry.DnsNames) == 1)
	Equal(t, "the revision", masked.Entry.RevisionNumber, int64(1))
	nothing := update(&types.EntryMask{}, &types.EntryMask{RevisionNumber: true}, &types.Entry{Id: "first"})[0]
	Item(t, nothing.Status, codes.OK)
	Equal(t, "the revision after an update of nothing", nothing.Entry.RevisionNumber, int64(2))
	True(t, "only what the mask names comes back", nothing.Entry.SpiffeId == nil && nothing.Entry.Id == "first")
	whole := entry("/n2", "/web2", "b:1")
	whole.Id = "first"
	replaced := update(nil, nil, whole)[0]
	Item(t, replaced.Status, codes.OK)
	True(t, "without a mask all is replaced", replaced.Entry.Hint == "" && replaced.Entry.X509SvidTtl == 0 && Uri(replaced.Entry.ParentId) == "spiffe://example.org/n2")
	Equal(t, "the revision", replaced.Entry.RevisionNumber, int64(3))
	// Two entries may become similar by an update.
	similar := entry("/n", "/db", "a:1")
	similar.Id = "first"
	results := update(nil, nil, similar, entry("/n", "/x", "a:1"), &types.Entry{Id: "none", ParentId: ID("/n"), SpiffeId: ID("/x"), Selectors: selectors("a:1")},
		&types.Entry{Id: "second", ParentId: ID("/n"), SpiffeId: ID("/spire/x"), Selectors: selectors("a:1")})
	Item(t, results[0].Status, codes.OK)
	// No id at all: SPIRE looks for it and finds nothing.
	Item(t, results[1].Status, Done(codes.InvalidArgument, codes.NotFound))
	Item(t, results[2].Status, codes.NotFound)
	Item(t, results[3].Status, codes.InvalidArgument)
	True(t, "a refused item has no entry", results[1].Entry == nil && results[2].Entry == nil)
	found, err := entriesOf(t, s).GetEntry(Context(t), &entryv1.GetEntryRequest{Id: "second"})
	Must(t, err)
	True(t, "a refused update changes nothing", found.RevisionNumber == 0 && found.SpiffeId.Path == "/db")
}

func deleteEntries(t *testing.T) {
	s := stock(t)
	answer, err := entriesOf(t, s).BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{"b", "", "none", "d"}})
	Must(t, err)
	for i, code := range []codes.Code{codes.OK, codes.InvalidArgument, codes.NotFound, codes.OK} {
		Item(t, answer.Results[i].Status, code, map[codes.Code]string{codes.InvalidArgument: "missing entry ID", codes.NotFound: "entry not found"}[code])
	}
	Equal(t, "the id in a result", answer.Results[3].Id, "d")
	left, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
	Must(t, err)
	Equal(t, "what is left", idsOf(left.Entries), "ace")
	again := entry("/n1", "/db", "s:1", "s:2")
	create(t, s, again)
}

func authorizedOf(t *testing.T, agent *Agent, mask *types.EntryMask) []*types.Entry {
	t.Helper()
	client := entryv1.NewEntryClient(agent.Conn)
	answer, err := client.GetAuthorizedEntries(Context(t), &entryv1.GetAuthorizedEntriesRequest{OutputMask: mask})
	Must(t, err)
	return answer.Entries
}

func authorizedEntries(t *testing.T) {
	s := Start(t, Settings{})
	agent, other := s.Attest(t), s.Attest(t)
	named := func(id, parent, path string, texts ...string) *types.Entry {
		made := entry(parent, path, texts...)
		made.Id = id
		return made
	}
	// The alias needs selectors that the node shows, and a node attested by token shows none.
	create(t, s,
		named("1", agent.ID.Path, "/web", "a:1"), named("2", "/web", "/web/child", "a:1"), named("3", "/web/child", "/web", "a:2"),
		named("4", other.ID.Path, "/db", "a:1"), named("5", "/nobody", "/lost", "a:1"), named("6", "/spire/server", "/alias", "zone:a"),
		named("7", "/alias", "/by-alias", "a:1"))
	sees := func(agent *Agent, ids string) {
		t.Helper()
		Eventually(t, "an agent sees the entries "+ids, func() bool { return idsOf(authorizedOf(t, agent, nil)) == ids })
	}
	sees(agent, "123")
	sees(other, "4")
	masked := authorizedOf(t, other, &types.EntryMask{SpiffeId: true})
	True(t, "the mask holds", masked[0].Id == "4" && masked[0].SpiffeId.Path == "/db" && masked[0].ParentId == nil)
	_, err := entriesOf(t, s).BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{"1"}})
	Must(t, err)
	sees(agent, "")
	_, err = entriesOf(t, s).GetAuthorizedEntries(Context(t), &entryv1.GetAuthorizedEntriesRequest{})
	Refused(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.entry.v1.Entry/GetAuthorizedEntries")
}

const syncPage = 500

// syncStream opens a stream and sends its first request.
func syncStream(t *testing.T, agent *Agent, first *entryv1.SyncAuthorizedEntriesRequest) entryv1.Entry_SyncAuthorizedEntriesClient {
	t.Helper()
	stream, err := entryv1.NewEntryClient(agent.Conn).SyncAuthorizedEntries(Context(t))
	Must(t, err)
	Must(t, stream.Send(first))
	return stream
}

func syncEntries(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	refused := map[string]*entryv1.SyncAuthorizedEntriesRequest{
		"specifying IDs on initial request is not supported": {Ids: []string{"x"}},
		"revision number cannot be masked":                   {OutputMask: &types.EntryMask{SpiffeId: true}},
	}
	for text, request := range refused {
		_, err := syncStream(t, agent, request).Recv()
		Refused(t, err, codes.InvalidArgument, text)
	}
	var batch []*types.Entry
	for i := range syncPage {
		one := entry(agent.ID.Path, fmt.Sprintf("/w/%d", i), "a:1")
		one.Id = fmt.Sprintf("entry-%04d", i)
		batch = append(batch, one)
	}
	create(t, s, batch...)
	Eventually(t, "the agent has its entries", func() bool { return len(authorizedOf(t, agent, nil)) == syncPage })
	// A page or less: all entries in one answer, and the stream ends.
	mask := &types.EntryMask{RevisionNumber: true, SpiffeId: true}
	stream := syncStream(t, agent, &entryv1.SyncAuthorizedEntriesRequest{OutputMask: mask})
	answer, err := stream.Recv()
	Must(t, err)
	True(t, "whole entries in one answer", len(answer.Entries) == syncPage && len(answer.EntryRevisions) == 0 && !answer.More)
	True(t, "the mask holds", answer.Entries[0].SpiffeId != nil && answer.Entries[0].ParentId == nil && answer.Entries[0].Id != "")
	_, err = stream.Recv()
	True(t, "the stream ends after a whole answer", err != nil && err.Error() == "EOF")

	one := entry(agent.ID.Path, "/w/last", "a:1")
	one.Id = "last"
	create(t, s, one)
	Eventually(t, "the agent has one entry more", func() bool { return len(authorizedOf(t, agent, nil)) == syncPage+1 })
	stream = syncStream(t, agent, &entryv1.SyncAuthorizedEntriesRequest{})
	first, err := stream.Recv()
	Must(t, err)
	True(t, "a first page of revisions", len(first.EntryRevisions) == syncPage && first.More && len(first.Entries) == 0)
	second, err := stream.Recv()
	Must(t, err)
	True(t, "a last page of revisions", len(second.EntryRevisions) == 1 && !second.More)
	True(t, "revisions say when entries were made", first.EntryRevisions[0].CreatedAt > 0 && first.EntryRevisions[0].Id != "")
	// What is asked for by id; ids that are not known are skipped, and the first mask rules.
	ids := []string{"unknown"}
	for _, revision := range append(first.EntryRevisions, second.EntryRevisions...) {
		ids = append(ids, revision.Id)
	}
	slices.Sort(ids)
	Must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: ids, OutputMask: &types.EntryMask{}}))
	full, err := stream.Recv()
	Must(t, err)
	True(t, "a full page of entries", len(full.Entries) == syncPage && full.More && full.Entries[0].SpiffeId != nil)
	full, err = stream.Recv()
	Must(t, err)
	True(t, "the last entry", len(full.Entries) == 1 && !full.More)
	Must(t, stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: []string{"unknown"}}))
	full, err = stream.Recv()
	Must(t, err)
	True(t, "an answer although nothing is known", len(full.Entries) == 0 && !full.More)
	Must(t, stream.CloseSend())
	_, err = stream.Recv()
	True(t, "the stream ends when the agent has no more questions", err != nil && err.Error() == "EOF")
	_, err = entryv1.NewEntryClient(s.Dial(t, nil)).GetAuthorizedEntries(Context(t), &entryv1.GetAuthorizedEntriesRequest{})
	Refused(t, err, codes.PermissionDenied)
}
