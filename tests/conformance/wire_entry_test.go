package conformance

import (
	"fmt"
	"testing"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	. "spindle-conformance/harness"
)

func init() {
	holds("WIRE-PAGES", pages)
	holds("WIRE-MASKS", masks)
	holds("WIRE-CONTROLLER", controller)
}

func pages(t *testing.T) {
	s := stock(t)
	walk := func(size int32, filter *entryFilter) (all, shape string) {
		token := ""
		for {
			request := &entryv1.ListEntriesRequest{PageSize: size, PageToken: token, Filter: filter}
			answer, err := entriesOf(t, s).ListEntries(Context(t), request)
			Must(t, err)
			all += idsOf(answer.Entries)
			shape += fmt.Sprint(len(answer.Entries))
			True(t, "a page has a token exactly when it has rows", (len(answer.Entries) > 0) == (answer.NextPageToken != ""))
			if answer.NextPageToken == "" {
				return all, shape
			}
			token = answer.NextPageToken
		}
	}
	for size, expected := range map[int32]string{1: "111110", 2: "2210", 5: "50", 9: "50"} {
		all, shape := walk(size, nil)
		Equal(t, fmt.Sprintf("what pages of %d hold", size), all, "abcde")
		Equal(t, fmt.Sprintf("how pages of %d are cut", size), shape, expected)
	}
	all, _ := walk(1, bySelectors(types.SelectorMatch_MATCH_EXACT, "s:1", "s:2"))
	Equal(t, "what pages of a filter hold", all, "b")
	_, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{PageSize: 1, PageToken: "no number"})
	Refused(t, err, codes.Internal, "could not parse token")
	whole, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
	Must(t, err)
	True(t, "no page size is everything", len(whole.Entries) == 5 && whole.NextPageToken == "")
	// What is made and unmade between two pages neither repeats nor hides what was there before.
	page, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{PageSize: 2})
	Must(t, err)
	late := entry("/n1", "/late", "s:1")
	late.Id = "f"
	create(t, s, late)
	_, err = entriesOf(t, s).BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{"b", "d"}})
	Must(t, err)
	rest, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{PageSize: 9, PageToken: page.NextPageToken})
	Must(t, err)
	Equal(t, "the rest of a list that changed meanwhile", idsOf(rest.Entries), "cef")
}

func masks(t *testing.T) {
	s := Start(t, Settings{})
	setForeignBundle(t, s, "other.example")
	full := &types.Entry{
		ParentId: ID("/n"), SpiffeId: ID("/web"), Selectors: selectors("a:1"), X509SvidTtl: 1, JwtSvidTtl: 2, FederatesWith: []string{"other.example"},
		Admin: true, Downstream: true, ExpiresAt: 4102444800, DnsNames: []string{"web"}, Hint: "h",
		AdditionalAttributes: &types.Entry_AdditionalAttributes{JwtSvidIncludeJti: true},
	}
	id := create(t, s, full)[0].Id
	update := &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{{Id: id}}, InputMask: &types.EntryMask{}, OutputMask: &types.EntryMask{}}
	_, err := entriesOf(t, s).BatchUpdateEntry(Context(t), update)
	Must(t, err)
	get := func(mask *types.EntryMask) *types.Entry {
		found, err := entriesOf(t, s).GetEntry(Context(t), &entryv1.GetEntryRequest{Id: id, OutputMask: mask})
		Must(t, err)
		return found
	}
	whole := get(nil).ProtoReflect()
	fields := (&types.EntryMask{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		// store_svid is false here: it does not go with a prefetch flag, and cannot be told from masked.
		field := fields.Get(i)
		if field.Name() == "store_svid" {
			continue
		}
		mask := &types.EntryMask{}
		mask.ProtoReflect().Set(field, protoreflect.ValueOfBool(true))
		found := get(mask).ProtoReflect()
		entryFields := found.Descriptor().Fields()
		for j := range entryFields.Len() {
			expected := entryFields.Get(j).Name() == "id" || entryFields.Get(j).Name() == field.Name()
			expected = expected && whole.Has(entryFields.Get(j))
			Equal(t, fmt.Sprintf("whether %s passes a mask of %s", entryFields.Get(j).Name(), field.Name()), found.Has(entryFields.Get(j)), expected)
		}
	}
}

func controller(t *testing.T) {
	s := Start(t, Settings{})
	client := entriesOf(t, s)
	// The probe that tells it whether a server knows the newer fields, repeated as it is by each of its replicas.
	probe := &types.Entry{
		Id: "", ParentId: ID("/spire-controller-manager/unsupported-fields-test"), SpiffeId: ID("/spire-controller-manager/unsupported-fields-test"),
		Selectors: selectors("a:1"), X509SvidTtl: 60, JwtSvidTtl: 60, StoreSvid: true, Hint: "hint",
	}
	var id string
	for _, code := range []codes.Code{codes.OK, codes.AlreadyExists} {
		answer, err := client.BatchCreateEntry(Context(t), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{probe}})
		Must(t, err)
		result := answer.Results[0]
		Item(t, result.Status, code)
		id = result.Entry.GetId()
		True(t, "the newer fields come back", result.Entry.GetJwtSvidTtl() == 60 && result.Entry.GetHint() == "hint" && result.Entry.GetStoreSvid())
	}
	answer, err := client.BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{id}})
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
	var batch []*types.Entry
	for i := range 50 {
		batch = append(batch, entry("/n", fmt.Sprintf("/pod/%d", i), "k8s:pod-uid:x"))
	}
	made := create(t, s, batch...)
	for _, one := range made {
		one.DnsNames = []string{"pod.example"}
	}
	updated, err := client.BatchUpdateEntry(Context(t), &entryv1.BatchUpdateEntryRequest{Entries: made})
	Must(t, err)
	for _, result := range updated.Results {
		Item(t, result.Status, codes.OK)
	}
	var ids []string
	request := &entryv1.ListEntriesRequest{PageSize: 200}
	for {
		page, err := client.ListEntries(Context(t), request)
		Must(t, err)
		for _, one := range page.Entries {
			ids = append(ids, one.Id)
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	Equal(t, "the number of entries", len(ids), 50)
	deleted, err := client.BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: ids})
	Must(t, err)
	for _, result := range deleted.Results {
		Item(t, result.Status, codes.OK)
	}
}
