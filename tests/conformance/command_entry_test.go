package conformance

import (
	"fmt"
	"strings"
	"testing"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("CMD-ENTRY-CREATE", entryCreate)
	holds("CMD-ENTRY-UPDATE", entryUpdate)
	holds("CMD-ENTRY-DELETE", entryDelete)
	holds("CMD-ENTRY-SHOW", entryShow)
	holds("CMD-ENTRY-COUNT", entryCount)
	holds("CMD-AGENT-LIST", agentList)
	holds("CMD-AGENT-COUNT", agentCount)
	holds("CMD-AGENT-SHOW", agentShow)
	holds("CMD-AGENT-BAN", agentBan)
	holds("CMD-AGENT-EVICT", agentEvict)
	holds("CMD-AGENT-PURGE", agentPurge)
}

// label is how output names a value: label and value are separated by blanks and a colon.
func label(t *testing.T, result Result, name, value string) {
	t.Helper()
	for line := range strings.Lines(result.Out) {
		left, right, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(left) == name && strings.TrimSpace(right) == value {
			return
		}
	}
	t.Errorf("no %s of %q: %v", name, value, result)
}

func unlabelled(t *testing.T, result Result, name string) {
	t.Helper()
	for line := range strings.Lines(result.Out) {
		if left, _, _ := strings.Cut(line, ":"); strings.TrimSpace(left) == name {
			t.Errorf("%s should not be there: %v", name, result)
		}
	}
}

var plain = []string{"-parentID", "spiffe://example.org/n", "-spiffeID", "spiffe://example.org/w", "-selector", "unix:uid:1"}

func entryCreate(t *testing.T) {
	s := Start(t, Settings{})
	setForeignBundle(t, s, "other.example")
	create := func(flags ...string) Result { return s.Run(t, append([]string{"entry", "create"}, flags...)...) }
	full := create(append(plain, "-entryID", "mine", "-selector", "unix:gid:2", "-x509SVIDTTL", "60", "-jwtSVIDTTL", "30", "-federatesWith", "spiffe://other.example",
		"-admin", "-downstream", "-entryExpiry", "4102444800", "-dns", "a.example", "-dns", "b.example", "-hint", "internal", "-disableX509SVIDPrefetch", "-jwtSVIDIncludeJTI")...)
	full.Succeeds(t)
	for _, pair := range [][2]string{
		{"Entry ID", "mine"}, {"SPIFFE ID", "spiffe://example.org/w"}, {"Parent ID", "spiffe://example.org/n"}, {"Revision", "0"}, {"Downstream", "true"},
		{"X509-SVID TTL", "60"}, {"JWT-SVID TTL", "30"}, {"Selector", "unix:uid:1"}, {"Selector", "unix:gid:2"}, {"FederatesWith", "other.example"},
		{"DNS name", "a.example"}, {"DNS name", "b.example"}, {"Admin", "true"}, {"Hint", "internal"}, {"DisableX509SvidPrefetch", "true"}, {"JwtSvidIncludeJti", "true"},
	} {
		label(t, full, pair[0], pair[1])
	}
	True(t, "its expiry", strings.Contains(full.Out, "2100-01-01"))
	node := create("-node", "-spiffeID", "spiffe://example.org/alias", "-selector", "zone:a").Succeeds(t)
	label(t, node, "Parent ID", "spiffe://example.org/spire/server")
	label(t, node, "X509-SVID TTL", "default")
	label(t, node, "JWT-SVID TTL", "default")
	for _, absent := range []string{"Downstream", "Admin", "StoreSvid", "Hint", "Expiration time", "DisableX509SvidPrefetch"} {
		unlabelled(t, node, absent)
	}
	label(t, create("-parentID", "spiffe://example.org/n", "-spiffeID", "spiffe://example.org/s", "-selector", "a:1", "-storeSVID").Succeeds(t), "StoreSvid", "true")
	create(plain...).Succeeds(t)
	again := create(plain...)
	again.Fails(t, 1, "Failed to create the following entry (code: AlreadyExists, msg: \"similar entry already exists\"):", "failed to create one or more entries")
	for text, flags := range map[string][]string{
		"at least one selector is required": plain[:4], "a parent ID is required": plain[2:], "a SPIFFE ID is required": {"-parentID", "spiffe://example.org/n", "-selector", "a:1"},
		"a positive x509-SVID TTL is required": append(plain, "-x509SVIDTTL", "-1"), "a positive JWT-SVID TTL is required": append(plain, "-jwtSVIDTTL", "-1"),
		"nocolon": append(plain[:4:4], "-selector", "nocolon"),
	} {
		create(flags...).Fails(t, 1, text)
	}
	data := `{"entries": [{"selectors": [{"type": "unix", "value": "uid:7"}], "spiffe_id": "spiffe://example.org/data1", "parent_id": "spiffe://example.org/n", "x509_svid_ttl": 200, "jwt_svid_ttl": 30, "dns_names": ["d.example"]},
		{"selectors": [{"type": "unix", "value": "uid:8"}], "spiffe_id": "spiffe://example.org/data2", "parent_id": "spiffe://example.org/n", "admin": true}]}`
	file := s.WriteFile(t, "entries.json", data)
	create("-data", file).Succeeds(t, "spiffe://example.org/data1", "spiffe://example.org/data2", "d.example")
	other := strings.ReplaceAll(data, "/data", "/stdin")
	s.RunWith(t, other, "entry", "create", "-data", "-").Succeeds(t, "spiffe://example.org/stdin2")
	s.RunWith(t, "{", "entry", "create", "-data", "-").Fails(t, 1)
}

func entryUpdate(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, append([]string{"entry", "create", "-entryID", "mine", "-hint", "old", "-dns", "a.example"}, plain...)...).Succeeds(t)
	update := func(flags ...string) Result { return s.Run(t, append([]string{"entry", "update"}, flags...)...) }
	changed := update(append(plain, "-entryID", "mine", "-x509SVIDTTL", "90")...).Succeeds(t)
	label(t, changed, "Revision", "1")
	label(t, changed, "X509-SVID TTL", "90")
	unlabelled(t, changed, "Hint")
	unlabelled(t, changed, "DNS name")
	made := update(append(plain, "-entryID", "mine", "-output", "json")...).JSON(t)
	Equal(t, "the revision", At(made, "results", 0, "entry", "revision_number"), any("2"))
	update(plain...).Fails(t, 1, "entry ID is required")
	update(append(plain, "-entryID", "none")...).Fails(t, 1, "Failed to update the following entry (code: NotFound", "failed to update one or more entries")
	update("-entryID", "mine", "-parentID", "spiffe://example.org/n", "-spiffeID", "spiffe://example.org/w").Fails(t, 1, "at least one selector is required")
	data := `{"entries": [{"entry_id": "mine", "selectors": [{"type": "unix", "value": "uid:7"}], "spiffe_id": "spiffe://example.org/data", "parent_id": "spiffe://example.org/n"}]}`
	label(t, s.RunWith(t, data, "entry", "update", "-data", "-").Succeeds(t), "SPIFFE ID", "spiffe://example.org/data")
}

func entryDelete(t *testing.T) {
	s := Start(t, Settings{})
	for i := range 4 {
		s.Run(t, "entry", "create", "-entryID", fmt.Sprintf("e%d", i), "-parentID", "spiffe://example.org/n", "-spiffeID", fmt.Sprintf("spiffe://example.org/w%d", i), "-selector", "a:1").Succeeds(t)
	}
	s.Run(t, "entry", "delete", "-entryID", "e0").Succeeds(t, "Deleted entry with ID: e0", "Deleted 1 entries successfully")
	s.Run(t, "entry", "delete", "-entryID", "e0").Fails(t, 1, "Failed to delete entry with ID e0 (code: NotFound, msg: \"entry not found\")", "failed to delete one or more entries")
	file := s.WriteFile(t, "ids.json", `{"ids": ["e1", "none"]}`)
	s.Run(t, "entry", "delete", "-file", file).Fails(t, 1, "Deleted entry with ID: e1", "Failed to delete entry with ID none")
	s.RunWith(t, `{"ids": ["e2"]}`, "entry", "delete", "-file", "-").Succeeds(t, "Deleted entry with ID: e2")
	made := s.Run(t, "entry", "delete", "-entryID", "none", "-output", "json").JSON(t)
	Equal(t, "the code", At(made, "results", 0, "status", "code"), any(float64(codes.NotFound)))
	Equal(t, "the id", At(made, "results", 0, "id"), any("none"))
	s.Run(t, "entry", "delete").Fails(t, 1, "an entry ID is required")
	left, err := entriesOf(t, s).CountEntries(Context(t), &entryv1.CountEntriesRequest{})
	Must(t, err)
	Equal(t, "the number left", left.Count, int32(1))
}

// showCases are filter flags of entry show and entry count over the entries of stock, and who passes.
func showCases() map[string][]string {
	return map[string][]string{
		"":                                   {"a", "b", "c", "d", "e"},
		"-spiffeID|spiffe://example.org/web": {"a", "c", "e"},
		"-parentID|spiffe://example.org/n2":  {"c", "d", "e"},
		"-downstream":                        {"c"},
		"-hint|h":                            {"b"},
		"-selector|s:1|-selector|s:2":        {"b", "d"},
		"-selector|s:1|-selector|s:2|-matchSelectorsOn|exact":               {"b"},
		"-selector|s:1|-selector|s:2|-matchSelectorsOn|subset":              {"a", "b", "c"},
		"-selector|s:1|-selector|s:9|-matchSelectorsOn|any":                 {"a", "b", "d"},
		"-federatesWith|spiffe://other.example":                             {"d", "e"},
		"-federatesWith|spiffe://other.example|-matchFederatesWithOn|exact": {"d"},
		"-federatesWith|spiffe://third.example|-matchFederatesWithOn|any":   {"e"},
		"-spiffeID|spiffe://example.org/none":                               {},
	}
}

func entryShow(t *testing.T) {
	s := stock(t)
	for flags, expected := range showCases() {
		arguments := []string{"entry", "show"}
		if flags != "" {
			arguments = append(arguments, strings.Split(flags, "|")...)
		}
		result := s.Run(t, arguments...).Succeeds(t)
		noun := "entries"
		if len(expected) == 1 {
			noun = "entry"
		}
		True(t, fmt.Sprintf("%d are found: %v", len(expected), result), strings.HasPrefix(result.Out, fmt.Sprintf("Found %d %s\n", len(expected), noun)))
		for _, id := range expected {
			label(t, result, "Entry ID", id)
		}
		made := s.Run(t, append(arguments, "-output", "json")...).JSON(t)
		list, _ := At(made, "entries").([]any)
		Equal(t, "the number in the JSON", len(list), len(expected))
	}
	one := s.Run(t, "entry", "show", "-entryID", "d").Succeeds(t, "Found 1 entry")
	label(t, one, "FederatesWith", "other.example")
	s.Run(t, "entry", "show", "-entryID", "none").Fails(t, 1, "none")
	s.Run(t, "entry", "show", "-entryID", "d", "-parentID", "spiffe://example.org/n1").Fails(t, 1, "-entryID flag can't be combined with others")
	s.Run(t, "entry", "show", "-selector", "s:1", "-matchSelectorsOn", "some").Fails(t, 1, "some")
	s.Run(t, "entry", "show", "-spiffeID", "no id").Fails(t, 1)
	// Sorted by SPIFFE ID, then parent, then selectors.
	all := s.Run(t, "entry", "show").Out
	order := ""
	for line := range strings.Lines(all) {
		if left, right, _ := strings.Cut(line, ":"); strings.TrimSpace(left) == "Entry ID" {
			order += strings.TrimSpace(right)
		}
	}
	Equal(t, "the order", order, "bdace")
}

func entryCount(t *testing.T) {
	s := stock(t)
	for flags, expected := range showCases() {
		arguments := []string{"entry", "count"}
		if flags != "" {
			arguments = append(arguments, strings.Split(flags, "|")...)
		}
		noun := "registration entries"
		if len(expected) == 1 {
			noun = "registration entry"
		}
		Equal(t, "the count", s.Run(t, arguments...).Succeeds(t).Out, fmt.Sprintf("%d %s\n", len(expected), noun))
	}
	Equal(t, "the count in JSON", At(s.Run(t, "entry", "count", "-output", "json").JSON(t), "count"), any(5.0))
}

func agentList(t *testing.T) {
	s, agents := threeAgents(t)
	all := s.Run(t, "agent", "list").Succeeds(t, "Found 3 attested agents:")
	for _, agent := range agents {
		label(t, all, "SPIFFE ID", Uri(agent.ID))
	}
	label(t, all, "Attestation type", "join_token")
	label(t, all, "Banned", "true")
	label(t, all, "Can re-attest", "false")
	label(t, all, "Serial number", agents[0].Leaf().SerialNumber.String())
	for flags, number := range map[string]int{
		"-banned true": 1, "-banned false": 2, "-banned maybe": 3, "-canReattest true": 0, "-canReattest false": 3, "-attestationType join_token": 3,
		"-attestationType x509pop": 0, "-selector a:1": 0, "-selector a:1 -matchSelectorsOn any": 0,
	} {
		result := s.Run(t, append([]string{"agent", "list"}, strings.Fields(flags)...)...).Succeeds(t)
		switch number {
		case 0:
			True(t, "none are found with "+flags, strings.Contains(result.Out, "No attested agents found"))
		case 1:
			True(t, "one is found with "+flags, strings.Contains(result.Out, "Found 1 attested agent:"))
		default:
			True(t, "they are found with "+flags, strings.Contains(result.Out, fmt.Sprintf("Found %d attested agents:", number)))
		}
		count := s.Run(t, append([]string{"agent", "count", "-output", "json"}, strings.Fields(flags)...)...).JSON(t)
		Equal(t, "the count with "+flags, At(count, "count"), any(float64(number)))
	}
	s.Run(t, "agent", "list", "-expiresBefore", "2100-01-01 00:00:00 +0000 +00").Succeeds(t, "Found 3 attested agents:")
	s.Run(t, "agent", "list", "-expiresBefore", "2000-01-01 00:00:00 +0000 +00").Succeeds(t, "No attested agents found")
	s.Run(t, "agent", "list", "-expiresBefore", "soon").Fails(t, 1, "soon")
	s.Run(t, "agent", "list", "-selector", "a:1", "-matchSelectorsOn", "some").Fails(t, 1)
	made := s.Run(t, "agent", "list", "-output", "json").JSON(t)
	Equal(t, "the type in the JSON", At(made, "agents", 0, "attestation_type"), any("join_token"))
}

func agentCount(t *testing.T) {
	s := Start(t, Settings{})
	Equal(t, "no agents", s.Run(t, "agent", "count").Succeeds(t).Out, "0 attested agents\n")
	s.Attest(t)
	Equal(t, "one agent", s.Run(t, "agent", "count").Succeeds(t).Out, "1 attested agent\n")
	Equal(t, "the count", At(s.Run(t, "agent", "count", "-output", "json").JSON(t), "count"), any(1.0))
}

func agentShow(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	shown := s.Run(t, "agent", "show", "-spiffeID", Uri(agent.ID)).Succeeds(t, "Found an attested agent given its SPIFFE ID")
	label(t, shown, "SPIFFE ID", Uri(agent.ID))
	label(t, shown, "Attestation type", "join_token")
	made := s.Run(t, "agent", "show", "-spiffeID", Uri(agent.ID), "-output", "json").JSON(t)
	Equal(t, "the path", At(made, "id", "path"), any(agent.ID.Path))
	s.Run(t, "agent", "show").Fails(t, 1, "SPIFFE ID is required")
	s.Run(t, "agent", "show", "-spiffeID", "spiffe://example.org/spire/agent/x/none").Fails(t, 1, "agent not found")
}

func agentBan(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	s.Run(t, "agent", "ban", "-spiffeID", Uri(agent.ID)).Succeeds(t, "Agent banned successfully")
	label(t, s.Run(t, "agent", "show", "-spiffeID", Uri(agent.ID)).Succeeds(t), "Banned", "true")
	s.Run(t, "agent", "ban", "-spiffeID", Uri(agent.ID), "-output", "json").JSON(t)
	s.Run(t, "agent", "ban").Fails(t, 1, "SPIFFE ID is required")
	s.Run(t, "agent", "ban", "-spiffeID", "spiffe://example.org/spire/agent/x/none").Fails(t, 1, "agent not found")
}

func agentEvict(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	s.Run(t, "agent", "evict", "-spiffeID", Uri(agent.ID)).Succeeds(t, "Agent evicted successfully")
	s.Run(t, "agent", "evict", "-spiffeID", Uri(agent.ID)).Fails(t, 1, "agent not found")
	s.Run(t, "agent", "evict").Fails(t, 1, "SPIFFE ID is required")
}

func agentPurge(t *testing.T) {
	s := Start(t, Settings{})
	s.Attest(t)
	// Agents attested by token cannot attest again and are left alone.
	s.Run(t, "agent", "purge", "-expiredFor", "0s").Succeeds(t, "No agents to purge.")
	made := s.Run(t, "agent", "purge", "-expiredFor", "0s", "-dryRun", "-output", "json").JSON(t)
	_, isThere := made.(map[string]any)["expired_agents"]
	True(t, "the list is in the JSON", isThere)
	s.Run(t, "agent", "purge", "-expiredFor", "soon").Fails(t, 1, "soon")
	s.Run(t, "agent", "count").Succeeds(t, "1 attested agent")
}
