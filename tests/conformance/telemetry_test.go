package conformance

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	. "spindle-conformance/harness"
)

func init() {
	holds("CFG-TELEMETRY", serverTelemetry)
	holds("AGENT-CFG-TELEMETRY", agentTelemetry)
}

// scrape is what a port tells Prometheus at any path; empty when nobody answers.
func scrape(t *testing.T, port int) string {
	t.Helper()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/some/path", port))
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	Must(t, err)
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("the answer to a scrape: %s %s", answer.Status, answer.Header.Get("Content-Type"))
	}
	return string(text)
}

// told waits until a line of all values matches each pattern.
func told(t *testing.T, values func() string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		expected := regexp.MustCompile("(?m)^" + pattern)
		Eventually(t, fmt.Sprintf("%q is told", pattern), func() bool { return expected.MatchString(values()) })
	}
}

// collector receives what is sent over UDP, as text.
type collector struct {
	Port  int
	mutex sync.Mutex
	text  strings.Builder
}

func collect(t *testing.T) *collector {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	Must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	c := &collector{Port: socket.LocalAddr().(*net.UDPAddr).Port}
	go func() {
		packet := make([]byte, 1<<16)
		for {
			length, _, err := socket.ReadFrom(packet)
			if err != nil {
				return
			}
			c.mutex.Lock()
			c.text.Write(packet[:length])
			c.text.WriteByte('\n')
			c.mutex.Unlock()
		}
	}()
	return c
}

func (c *collector) Text() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.text.String()
}

func serverTelemetry(t *testing.T) {
	host, err := os.Hostname()
	Must(t, err)
	port, statsd, dogStatsd := freePort(t), collect(t), collect(t)
	s := Start(t, Settings{Below: fmt.Sprintf(`telemetry {
        Prometheus { host = "127.0.0.1" port = %d }
        Statsd = [ { address = "127.0.0.1:%d" } ]
        DogStatsd = [ { address = "127.0.0.1:%d" } ]
        InMem {}
        AllowedLabels = []
    }`, port, statsd.Port, dogStatsd.Port)})
	s.Run(t, "entry", "show").Succeeds(t)
	s.Run(t, "entry", "show", "-entryID", "none").Fails(t, 1, "")
	values := func() string { return scrape(t, port) }
	ours := fmt.Sprintf(`host="%s"`, regexp.QuoteMeta(host))
	told(t, values,
		`spire_server_started\{.*trust_domain_id="example_org".*\} 1`,
		`spire_server_started\{.*version="\w+".*\} 1`,
		`spire_server_started\{.*`+ours+`.*\} 1`,
		`spire_server_uptime_in_ms\{`+ours+`\} `,
		`# TYPE spire_server_rpc_entry_v1_entry_list_entries counter`,
		`# TYPE spire_server_rpc_entry_v1_entry_list_entries_elapsed_time summary`,
		`spire_server_rpc_entry_v1_entry_list_entries\{.*status="OK".*\} 1`,
		`spire_server_rpc_entry_v1_entry_list_entries_elapsed_time\{.*quantile="0.99".*\} `,
		`spire_server_rpc_entry_v1_entry_list_entries_elapsed_time_count\{.*status="OK".*\} 1`,
		`spire_server_rpc_entry_v1_entry_get_entry\{.*status="NotFound".*\} 1`,
		`spire_server_ca_manager_x509_ca_prepare\{.*status="OK".*\} `,
		`spire_server_ca_manager_x509_ca_activate\{`,
		`spire_server_manager_x509_ca_rotate_expiration\{.*trust_domain_id="example_org".*\} `,
		`spire_server_server_ca_sign_x509_svid\{`,
		`spire_server_svid_rotate\{.*status="OK".*\} `,
	)
	told(t, statsd.Text, `spire_server\.rpc\.entry\.v1\.entry\.list_entries\.OK\.`+regexp.QuoteMeta(host)+`:1(\.0+)?\|c`)
	told(t, dogStatsd.Text, `spire_server\.rpc\.entry\.v1\.entry\.list_entries:1\|c\|#status:OK,host:`+regexp.QuoteMeta(host))
	Eventually(t, "the values are in the log", func() bool {
		s.Signal(t, syscall.SIGUSR1)
		return regexp.MustCompile(`spire_server[._]started`).MatchString(s.Log())
	})

	port = freePort(t)
	Start(t, Settings{Below: fmt.Sprintf(`telemetry {
        Prometheus { port = %d }
        MetricPrefix = "other"
        EnableTrustDomainLabel = true
        EnableHostnameLabel = false
        BlockedPrefixes = ["other.ca"]
        AllowedPrefixes = ["other.ca.manager.x509_ca.activate"]
        BlockedLabels = ["version"]
    }`, port)})
	told(t, values,
		`other_started\{trust_domain="example_org",trust_domain_id="example_org"\} 1|other_started\{trust_domain_id="example_org",trust_domain="example_org"\} 1`,
		`other_ca_manager_x509_ca_activate\{trust_domain="example_org"\} `)
	True(t, "what is blocked is not told", !strings.Contains(values(), "x509_ca_prepare"))

	for _, block := range []string{`Prometheus { prt = 1 }`, `Statsd = [ { adress = "h:1" } ]`, `InMem { quux = 1 }`} {
		Refuses(t, Settings{Below: "telemetry { " + block + " }"}, "is not a known key")
	}
	if !Stock() {
		Refuses(t, Settings{Below: `telemetry { M3 = [ { address = "localhost:9000" env = "prod" } ] }`}, "telemetry.M3")
		Refuses(t, Settings{Below: `telemetry { Prometheus { port = 1 tls { use_spire_svid = true } } }`}, "use_spire_svid")
	}
}

func agentTelemetry(t *testing.T) {
	host, err := os.Hostname()
	Must(t, err)
	port, statsd := freePort(t), collect(t)
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{
		Agent: `admin_socket_path = "{DIR}/admin/admin.sock"`,
		Below: fmt.Sprintf(`telemetry {
            Prometheus { host = "127.0.0.1" port = %d }
            Statsd = [ { address = "127.0.0.1:%d" } ]
        }`, port, statsd.Port),
	})
	agent.Register(t, "/web")
	agent.AwaitFetch(t, "/web")
	values := func() string { return scrape(t, port) }
	told(t, values,
		`spire_agent_started\{.*trust_domain_id="example_org".*\} 1`,
		`spire_agent_uptime_in_ms\{`,
		`# TYPE spire_agent_rpc_workload_api_fetch_x509svid counter`,
		`# TYPE spire_agent_rpc_workload_api_fetch_x509svid_elapsed_time summary`,
		`spire_agent_rpc_workload_api_fetch_x509svid\{.*status="OK".*\} `,
		`spire_agent_rpc_workload_api_fetch_x509svid_elapsed_time\{.*quantile="0.9".*\} `,
		`spire_agent_rpc_workload_api_fetch_x509svid_elapsed_time_sum\{.*status="OK".*\} `,
		`spire_agent_rpc_health_check\{.*status="OK".*\} `,
		`spire_agent_workload_api_connection\{.*\} `,
		`spire_agent_workload_api_connections\{.*\} 0`,
		`spire_agent_workload_api_workload_attestation\{.*status="OK".*\} `,
		`spire_agent_workload_api_workload_attestor\{.*attestor="unix".*\} `,
		`spire_agent_workload_api_discovered_selectors_count\{.*\} `,
		`spire_agent_manager_sync_fetch_entries_updates\{.*status="OK".*\} `,
		`spire_agent_manager_sync_fetch_svids_updates\{.*status="OK".*\} `,
		`spire_agent_lru_cache_entry_add\{.*\} 1`,
		`spire_agent_lru_cache_record_map_size\{.*svid_type="X509".*\} 1`,
		`spire_agent_lru_cache_svid_map_size\{.*svid_type="X509".*\} 1`,
		`spire_agent_node_attestor_new_svid\{.*attestor="join_token".*\} 1`,
		`spire_agent_agent_key_manager_generate_key\{.*status="OK".*\} 1`,
		`spire_agent_bootstrapped\{.*\} 1`,
	)
	told(t, statsd.Text, `spire_agent\.rpc\.workload_api\.fetch_x509svid\.OK\.`+regexp.QuoteMeta(host)+`:1(\.0+)?\|c`)
	// A workload with an open stream is one of the connections.
	watch := SpawnAgent(t, agent, "api", "watch")
	told(t, values, `spire_agent_workload_api_connections\{.*\} 1`)
	watch.Stop()
	told(t, values, `spire_agent_workload_api_connections\{.*\} 0`)

	valid(t, AgentSettings{Below: `telemetry { DogStatsd { address = "localhost:8125" } InMem {} MetricPrefix = "a" EnableTrustDomainLabel = true }`})
	invalid(t, AgentSettings{Below: `telemetry { Prometheus { prt = 1 } }`}, "telemetry.Prometheus.prt")
	invalid(t, AgentSettings{Below: `telemetry { InMem { quux = 1 } }`}, "telemetry.InMem.quux")
	if !StockAgent() {
		invalid(t, AgentSettings{Below: `telemetry { M3 = [ { address = "h:1" env = "e" } ] }`}, "telemetry.M3")
		invalid(t, AgentSettings{Below: `telemetry { Prometheus { port = 1 tls { use_spire_svid = true } } }`}, "use_spire_svid")
	}
}
