// Package conformance states the behaviour of SPIRE's server and agent, one test for each row of docs/spire-compatibility.md.
//
// The tests are in rpc_*, wire_*, command_*, setting_*, plugin_* and agent_* files and register themselves with holds or absent. Start at
// TestRows; TestTable keeps rows and tests together.
package conformance

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "google.golang.org/grpc/health/grpc_health_v1"

	. "spindle-conformance/harness"
)

const tablePath = "../../docs/spire-compatibility.md"

// check is the test of one row.
type check struct {
	verdicts []string
	run      func(t *testing.T)
}

var checks = map[string]check{}

// holds registers the test of a row that says same or better.
func holds(id string, run func(t *testing.T)) { register(id, check{[]string{"same", "better"}, run}) }

// absent registers the test of a row that says so: what is not there has to be refused clearly.
func absent(id string, run func(t *testing.T)) { register(id, check{[]string{"absent"}, run}) }

func register(id string, row check) {
	if _, twice := checks[id]; twice {
		panic("two tests for row " + id)
	}
	checks[id] = row
}

// TestRows runs the test of each row under the row's name.
func TestRows(t *testing.T) {
	for _, id := range slices.Sorted(maps.Keys(checks)) {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			isStock := Stock() || strings.HasPrefix(id, "AGENT-") && StockAgent()
			if isStock && slices.Contains(checks[id].verdicts, "absent") {
				t.Skip("what is absent here may well be there")
			}
			// An answer that lacks what a test reaches for is the failure of that row, not the end of all.
			defer func() {
				if fault := recover(); fault != nil {
					t.Errorf("panic: %v\n%s", fault, debug.Stack())
				}
			}()
			checks[id].run(t)
		})
	}
}

// tableRow is a row of the document.
type tableRow struct{ id, what, verdict, remarks string }

var rowPattern = regexp.MustCompile("^\\| `([A-Z0-9_-]+)` \\| (.+?) \\| (\\w+) \\|(.*)\\|$")

// table reads the document. A line of a table that is not a row of the right form is an error.
func table(t *testing.T) []tableRow {
	t.Helper()
	text, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	var rows []tableRow
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ID ") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := rowPattern.FindStringSubmatch(line)
		if cells == nil {
			t.Errorf("no row: %s", line)
			continue
		}
		rows = append(rows, tableRow{cells[1], cells[2], cells[3], strings.TrimSpace(cells[4])})
	}
	return rows
}

// TestTable fails when a row has no test, a test no row, when both disagree on what is there, or an RPC is missing.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range table(t) {
		if seen[row.id] {
			t.Errorf("%s stands in the table twice", row.id)
		}
		seen[row.id] = true
		if !slices.Contains([]string{"same", "better", "absent"}, row.verdict) {
			t.Errorf("%s: %q is no verdict", row.id, row.verdict)
		}
		if row.verdict != "same" && row.remarks == "" {
			t.Errorf("%s is %s and does not say how or why", row.id, row.verdict)
		}
		found, tested := checks[row.id]
		if !tested {
			t.Errorf("%s has no test", row.id)
		} else if !slices.Contains(found.verdicts, row.verdict) {
			t.Errorf("%s is %s in the table, its test is for %v", row.id, row.verdict, found.verdicts)
		}
	}
	for id := range checks {
		if !seen[id] {
			t.Errorf("the test of %s has no row", id)
		}
	}
}

// TestEveryRPCHasARow goes by the descriptors of SPIRE's SDK, go-spiffe and Envoy: an RPC that one of them gains fails here.
func TestEveryRPCHasARow(t *testing.T) {
	rows := map[string]bool{}
	for _, row := range table(t) {
		rows[row.what] = true
	}
	found := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				for _, name := range rowNames(service, service.Methods().Get(j)) {
					found++
					if !rows[name] {
						t.Errorf("no row for %s", name)
					}
				}
			}
		}
		return true
	})
	if found < 90 {
		t.Errorf("only %d RPCs found", found)
	}
}

// servicesOfAgent are SPIRE's, beside health and those whose names begin with spire.
var servicesOfAgent = []protoreflect.FullName{
	"SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService", "spiffe.broker.API", "grpc.reflection.v1.ServerReflection",
}

// rowNames are how an RPC is written in the table: once, or for what server and agent both have twice.
func rowNames(service protoreflect.ServiceDescriptor, method protoreflect.MethodDescriptor) []string {
	name := string(service.FullName())
	whole := fmt.Sprintf("`%s/%s`", name, method.Name())
	ofServer := serverRowName(service, method)
	isOfAgent := strings.HasPrefix(name, "spire.api.agent.") || strings.HasPrefix(name, "spire.agent.")
	switch {
	case ofServer != "":
		return []string{ofServer}
	case name == "grpc.health.v1.Health":
		return []string{whole, whole + " of the agent"}
	case isOfAgent || slices.Contains(servicesOfAgent, service.FullName()):
		return []string{whole}
	}
	return nil
}

// serverRowName is how an RPC of the server's own services is written.
func serverRowName(service protoreflect.ServiceDescriptor, method protoreflect.MethodDescriptor) string {
	inner, isOfServer := strings.CutPrefix(string(service.FullName()), "spire.api.server.")
	if !isOfServer {
		return ""
	}
	return fmt.Sprintf("`%s.%s`", strings.Split(inner, ".")[0], method.Name())
}
