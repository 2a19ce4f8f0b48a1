package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "spindle-conformance/harness"
)

func agentSignals(t *testing.T) {
	agent := PrepareAgent(t, Start(t, Settings{}), AgentSettings{})
	log, old := filepath.Join(agent.Dir, "agent.log"), filepath.Join(agent.Dir, "agent.log.1")
	agent.Boot(t, "-logFile", log)
	Must(t, os.Rename(log, old))
	agent.Signal(t, syscall.SIGUSR2)
	Eventually(t, "the log file is opened again", func() bool {
		_, err := os.Stat(log)
		return err == nil
	})
	agent.Run(t, "healthcheck").Succeeds(t)
	if !StockAgent() {
		text, err := os.ReadFile(agent.ConfigPath)
		Must(t, err)
		agent.WriteFile(t, "agent.conf", strings.Replace(string(text), `log_level = "DEBUG"`, `log_level = "INFO"`, 1))
		agent.Signal(t, syscall.SIGHUP)
		awaitFile(t, log, "agent.log_level: debug -> info")
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		agent.Signal(t, signal)
		Equal(t, "the exit status", agent.AwaitExit(t), 0)
		_, err := os.Stat(agent.Socket)
		True(t, "the socket is gone", os.IsNotExist(err))
		agent.Boot(t, "-logFile", log)
	}
}

func awaitFile(t *testing.T, path, text string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%q is in %s", text, filepath.Base(path)), func() bool {
		found, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(found), text)
	})
}

// agentPlugins are blocks that SPIRE's agent does not start with, or starts without.
func agentPlugins(t *testing.T) {
	server := Start(t, Settings{})
	for _, bad := range []AgentSettings{
		{Plugins: `KeyManager "memory" { plugin_data {} }`},
		{Plugins: `NodeAttestor "x509pop" { plugin_data {} }`},
		{Plugins: `WorkloadAttestor "quux" { plugin_data {} }`},
		{Plugins: `Quux "quux" { plugin_data {} }`},
	} {
		agent := PrepareAgent(t, server, bad)
		agent.Spawn(t)
		agent.AwaitEnd(t)
	}
	agent := PrepareAgent(t, server, AgentSettings{})
	text, err := os.ReadFile(agent.ConfigPath)
	Must(t, err)
	for _, kind := range []string{"KeyManager", "WorkloadAttestor"} {
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if strings.HasPrefix(strings.TrimSpace(line), kind+" ") {
				lines[i] = strings.Replace(line, "{", "{ enabled = false\n", 1)
			}
		}
		agent.WriteFile(t, "agent.conf", strings.Join(lines, "\n"))
		if kind == "WorkloadAttestor" || StockAgent() {
			agent.Spawn(t)
			agent.AwaitEnd(t)
		}
	}
	off := StartAgent(t, server, AgentSettings{Plugins: `WorkloadAttestor "docker" { enabled = false plugin_data {} }` + "\n" + `SVIDStore "aws_secretsmanager" { enabled = false }`})
	off.Run(t, "healthcheck").Succeeds(t)
}

// agentPluginFile changes the settings of plugins in a file of their own while the agent runs.
func agentPluginFile(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	text, err := os.ReadFile(agent.ConfigPath)
	Must(t, err)
	file := agent.WriteFile(t, "unix.hcl", "discover_workload_path = false")
	block := `WorkloadAttestor "unix" { plugin_data {} }`
	withFile := func(block2 string) {
		agent.WriteFile(t, "agent.conf", strings.ReplaceAll(string(text), block, block2))
	}
	withFile(fmt.Sprintf(`WorkloadAttestor "unix" { plugin_data_file = %q }`, file))
	agent.Boot(t)
	binary, err := filepath.EvalSymlinks(AgentBinary())
	Must(t, err)
	server.Run(t, "entry", "create", "-parentID", "spiffe://"+TrustDomain+"/spire/agent/join_token/"+agent.Token,
		"-spiffeID", "spiffe://"+TrustDomain+"/by-path", "-selector", "unix:path:"+binary).Succeeds(t)
	agent.EntryFor(t, "/by-user", nil)
	result := agent.AwaitFetch(t, "/by-user")
	True(t, "the path is not looked at", !strings.Contains(result.Out, "/by-path"))

	// What cannot be used is logged, and everything goes on as it was.
	agent.WriteFile(t, "unix.hcl", "discover_workload_path = ")
	agent.Signal(t, syscall.SIGUSR1)
	if StockAgent() {
		agent.AwaitLog(t, "Failed to reconfigure plugin")
	} else {
		agent.AwaitLog(t, "configuration not reloaded")
	}
	agent.AwaitFetch(t, "/by-user")
	agent.WriteFile(t, "unix.hcl", "discover_workload_path = true")
	agent.Signal(t, syscall.SIGUSR1)
	agent.AwaitLog(t, "Plugin reconfigured")
	agent.AwaitFetch(t, "/by-path", "/by-user")

	agent.Stop()
	withFile(`WorkloadAttestor "unix" { plugin_data_file = "/nonexistent" }`)
	agent.Spawn(t)
	agent.AwaitEnd(t)
	withFile("WorkloadAttestor \"unix\" {\n plugin_data_file = \"/x\"\n plugin_data {}\n}")
	agent.Spawn(t)
	agent.AwaitEnd(t)
	nodeFile(t)
}

// nodeFile gives an agent another certificate to prove its node with, from its next attestation on.
func nodeFile(t *testing.T) {
	server := Prepare(t, Settings{})
	first := newNode(t, server)
	other := newNode(t, server)
	server.WriteConfig(t, Settings{Server: "agent_ttl = \"20s\"\nratelimit { attestation = false }",
		Plugins: fmt.Sprintf(`NodeAttestor "x509pop" { plugin_data { ca_bundle_paths = [%q, %q] } }`, first.bundle, other.bundle)})
	server.Boot(t)
	file := server.WriteFile(t, "node.hcl", first.data(t, server))
	agent := StartAgent(t, server, AgentSettings{WithoutToken: true, Node: fmt.Sprintf(`NodeAttestor "x509pop" { plugin_data_file = %q }`, file)})
	server.Run(t, "agent", "list").Succeeds(t, "/spire/agent/x509pop/"+first.fingerprint)
	server.WriteFile(t, "node.hcl", other.data(t, server))
	agent.Signal(t, syscall.SIGUSR1)
	agent.AwaitLog(t, "Plugin reconfigured")
	Eventually(t, "the agent proves itself with the other certificate", func() bool {
		return strings.Contains(server.Run(t, "agent", "list").Out, "/spire/agent/x509pop/"+other.fingerprint)
	})
}
