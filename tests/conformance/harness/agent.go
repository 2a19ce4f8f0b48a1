package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Another agent than ours can be put to the same tests.
const agentVariable = "SPINDLE_CONFORMANCE_AGENT"

// AgentSettings are what a test wants different from a plain agent.
type AgentSettings struct {
	// Agent holds lines for inside the agent block.
	Agent string
	// Trust replaces the line that names the server's bundle.
	Trust string
	// Plugins holds blocks for inside the plugins block, besides keys, join token and the unix attestor.
	Plugins string
	// Below holds blocks that stand beside the agent block.
	Below string
	// Node replaces the block of the node attestor.
	Node string
	// Socket replaces the line that names the public socket.
	Socket string
	// WithoutToken leaves the join token to the flags.
	WithoutToken bool
}

// AgentProcess is an agent's process with its folder.
type AgentProcess struct {
	Dir        string
	Socket     string
	ConfigPath string
	// Token is the join token, which makes the agent's SPIFFE ID.
	Token string
	// Environment is added to that of the tests.
	Environment []string

	server  *Server
	command *exec.Cmd
	log     *Log
	ended   chan struct{}
}

// StockAgent tells whether another agent than ours is under test.
func StockAgent() bool { return os.Getenv(agentVariable) != "" }

// AgentBinary is the path of the agent under test.
func AgentBinary() string {
	if path := os.Getenv(agentVariable); path != "" {
		return path
	}
	here, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return filepath.Join(here, "..", "..", "target", "debug", "spindle-agent")
}

// PrepareAgent writes the configuration of an agent that is not started yet, for a server that serves.
func PrepareAgent(t *testing.T, server *Server, settings AgentSettings) *AgentProcess {
	t.Helper()
	token := ""
	if !settings.WithoutToken {
		token = server.JoinToken(t)
	}
	return prepareAgent(t, server, settings, server.Run(t, "bundle", "show").Succeeds(t).Out, token)
}

func prepareAgent(t *testing.T, server *Server, settings AgentSettings, bundle, token string) *AgentProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "ca")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	agent := &AgentProcess{
		Dir:        dir,
		Socket:     filepath.Join(dir, "p", "api.sock"),
		ConfigPath: filepath.Join(dir, "agent.conf"),
		Token:      token,
		server:     server,
	}
	agent.WriteFile(t, "bundle.pem", bundle)
	agent.WriteConfig(t, settings)
	t.Cleanup(func() { agent.Stop() })
	return agent
}

// StartAgent starts an agent and waits until its workloads are served. It ends with the test.
func StartAgent(t *testing.T, server *Server, settings AgentSettings, flags ...string) *AgentProcess {
	t.Helper()
	agent := PrepareAgent(t, server, settings)
	agent.Boot(t, flags...)
	return agent
}

// WriteConfig replaces the agent's configuration file. {DIR} in texts stands for its folder.
func (a *AgentProcess) WriteConfig(t *testing.T, settings AgentSettings) {
	t.Helper()
	host, port, _ := strings.Cut(a.server.Address, ":")
	trust, token, socket, node := settings.Trust, "", settings.Socket, settings.Node
	if node == "" {
		node = `NodeAttestor "join_token" { plugin_data {} }`
	}
	if trust == "" {
		trust = `trust_bundle_path = "{DIR}/bundle.pem"`
	}
	if a.Token != "" {
		token = fmt.Sprintf("join_token = %q", a.Token)
	}
	if socket == "" {
		socket = fmt.Sprintf("socket_path = %q", a.Socket)
	}
	text := fmt.Sprintf(`agent {
    trust_domain = %q
    data_dir = "{DIR}/data"
    server_address = %q
    server_port = %s
    log_level = "DEBUG"
    %s
    %s
    %s
    %s
}
plugins {
    KeyManager "disk" { plugin_data { directory = "{DIR}/data" } }
    %s
    WorkloadAttestor "unix" { plugin_data {} }
    %s
}
%s
`, a.server.TrustDomain, host, port, socket, trust, token, settings.Agent, node, settings.Plugins, settings.Below)
	a.WriteFile(t, "agent.conf", strings.ReplaceAll(text, "{DIR}", a.Dir))
}

// WriteFile puts a file into the agent's folder and returns its path.
func (a *AgentProcess) WriteFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(a.Dir, name)
	Must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Boot starts the process and waits until workloads are served.
func (a *AgentProcess) Boot(t *testing.T, flags ...string) {
	t.Helper()
	a.Spawn(t, flags...)
	Eventually(t, "the agent serves", func() bool {
		if a.HasEnded() {
			t.Fatalf("the agent ended before it served:\n%s", a.log)
		}
		return ExecuteAgent(t, a.Dir, "healthcheck", "-socketPath", a.Socket).Status == 0
	})
}

// Spawn starts the process and does not wait for anything.
func (a *AgentProcess) Spawn(t *testing.T, flags ...string) {
	t.Helper()
	a.spawn(t, append([]string{"run", "-config", a.ConfigPath}, flags...)...)
}

// SpawnAgent starts a command that goes on for as long as the test, on an agent's public socket.
func SpawnAgent(t *testing.T, agent *AgentProcess, arguments ...string) *AgentProcess {
	t.Helper()
	process := &AgentProcess{Dir: agent.Dir}
	process.spawn(t, append(arguments, "-socketPath", agent.Socket)...)
	t.Cleanup(func() { process.Stop() })
	return process
}

func (a *AgentProcess) spawn(t *testing.T, arguments ...string) {
	t.Helper()
	a.log, a.ended = &Log{}, make(chan struct{})
	command := exec.Command(AgentBinary(), arguments...)
	command.Dir = a.Dir
	command.Env = append(os.Environ(), a.Environment...)
	command.Stdout, command.Stderr = a.log, a.log
	Must(t, command.Start())
	// There is nothing to stop before this.
	a.command = command
	go func(ended chan struct{}) {
		_ = command.Wait()
		close(ended)
	}(a.ended)
}

// AwaitEnd waits until the process has ended by itself with status 1, and returns what it printed.
func (a *AgentProcess) AwaitEnd(t *testing.T) string {
	t.Helper()
	select {
	case <-a.ended:
	case <-time.After(2 * Patience):
		t.Fatalf("the agent does not end:\n%s", a.log)
	}
	if code := a.command.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d, not 1", code)
	}
	return a.log.String()
}

// Log is what the agent has printed since its last start.
func (a *AgentProcess) Log() string { return a.log.String() }

// AwaitLog waits until the agent has logged a text, and returns all it has logged.
func (a *AgentProcess) AwaitLog(t *testing.T, text string) string {
	t.Helper()
	Eventually(t, fmt.Sprintf("the agent logs %q", text), func() bool { return strings.Contains(a.log.String(), text) })
	return a.log.String()
}

// HasEnded tells whether the process is gone.
func (a *AgentProcess) HasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// Signal sends a signal to the process.
func (a *AgentProcess) Signal(t *testing.T, signal os.Signal) {
	t.Helper()
	Must(t, a.command.Process.Signal(signal))
}

// AwaitExit waits until the process has ended, for whatever reason, and returns its status.
func (a *AgentProcess) AwaitExit(t *testing.T) int {
	t.Helper()
	Eventually(t, "the agent ends", a.HasEnded)
	return a.command.ProcessState.ExitCode()
}

// Stop ends the process and waits for it.
func (a *AgentProcess) Stop() {
	if a.command == nil {
		return
	}
	_ = a.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(15 * time.Second):
		_ = a.command.Process.Kill()
		<-a.ended
	}
	a.command = nil
}

// Register gives processes of whoever runs the tests an identity on this agent.
func (a *AgentProcess) Register(t *testing.T, path string) {
	t.Helper()
	td := "spiffe://" + a.server.TrustDomain
	a.server.Run(t, "entry", "create", "-parentID", td+"/spire/agent/join_token/"+a.Token, "-spiffeID", td+path,
		"-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())).Succeeds(t)
}

// Run calls a command of the agent's binary on its public socket.
func (a *AgentProcess) Run(t *testing.T, arguments ...string) Result {
	t.Helper()
	return ExecuteAgent(t, a.Dir, append(arguments, "-socketPath", a.Socket)...)
}

// AwaitFetch fetches X509-SVIDs until there are some with all these texts.
func (a *AgentProcess) AwaitFetch(t *testing.T, texts ...string) Result {
	t.Helper()
	var result Result
	Eventually(t, fmt.Sprintf("a workload is given %q", texts), func() bool {
		result = a.Run(t, "api", "fetch", "x509")
		for _, text := range texts {
			if !strings.Contains(result.Out, text) {
				return false
			}
		}
		return result.Status == 0
	})
	return result
}

// Validate checks the configuration with the command for that.
func (a *AgentProcess) Validate(t *testing.T, flags ...string) Result {
	t.Helper()
	return ExecuteAgent(t, a.Dir, append([]string{"validate", "-config", a.ConfigPath}, flags...)...)
}

// ExecuteAgent runs the agent's binary with these arguments and no other.
func ExecuteAgent(t *testing.T, dir string, arguments ...string) Result {
	t.Helper()
	command := exec.Command(AgentBinary(), arguments...)
	command.Dir = dir
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{arguments, out.String(), problems.String(), command.ProcessState.ExitCode()}
}
