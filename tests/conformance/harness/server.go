// Package harness starts a real server process in a folder of its own and calls it as its callers do.
//
// Nothing of our server is compiled in: messages come from SPIRE's SDK, everything else over sockets and from the command line.
// Start at Start, then Server.Local, Server.Attest and Server.Run.
package harness

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// TrustDomain is the name that servers have unless a test says otherwise.
const TrustDomain = "example.org"

// Patience is far beyond any healthy answer: reaching it is a failure, not a slow machine.
const Patience = 60 * time.Second

// Another server than ours can be put to the same tests: its binary, and the DataStore block that it needs.
const (
	serverVariable = "SPINDLE_CONFORMANCE_SERVER"
	storeVariable  = "SPINDLE_CONFORMANCE_DATASTORE"
)

// Settings are what a test wants different from a plain server.
type Settings struct {
	// Server holds lines for inside the server block.
	Server string
	// Plugins holds blocks for inside the plugins block, besides store, keys and join token.
	Plugins string
	// Below holds blocks that stand beside the server block.
	Below string
	// Store is the whole DataStore block; empty is the memory store.
	Store string
	// Keys is the whole KeyManager block; empty is the memory key manager.
	Keys string
	// BindAddress and BindPort are other texts than those of a free port on the loopback address.
	BindAddress, BindPort string
	// TrustDomain is another name than the usual one.
	TrustDomain string
	// Flags are added to the command line.
	Flags []string
}

// Server is a process that serves.
type Server struct {
	Dir         string
	Socket      string
	Address     string
	ConfigPath  string
	TrustDomain string

	command *exec.Cmd
	log     *Log
	ended   chan struct{}
	local   *grpc.ClientConn
}

// Log is what a process has printed so far.
type Log struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.Write(p)
}

func (l *Log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.String()
}

// Stock tells whether another server than ours is under test.
func Stock() bool { return os.Getenv(serverVariable) != "" }

// Binary is the path of the server under test.
func Binary() string {
	if path := os.Getenv(serverVariable); path != "" {
		return path
	}
	here, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return filepath.Join(here, "..", "..", "target", "debug", "spindle-server")
}

// Start starts a server and waits until it serves. It ends with the test.
func Start(t *testing.T, settings Settings) *Server {
	t.Helper()
	server := Prepare(t, settings)
	server.Boot(t)
	return server
}

// Prepare writes the configuration of a server that is not started yet.
func Prepare(t *testing.T, settings Settings) *Server {
	t.Helper()
	// Socket paths are short, t.TempDir is not.
	dir, err := os.MkdirTemp("", "cf")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server := &Server{
		Dir:         dir,
		Socket:      filepath.Join(dir, "s", "api.sock"),
		ConfigPath:  filepath.Join(dir, "server.conf"),
		TrustDomain: settings.TrustDomain,
	}
	if server.TrustDomain == "" {
		server.TrustDomain = TrustDomain
	}
	server.WriteConfig(t, settings)
	t.Cleanup(func() { server.Stop() })
	return server
}

// WriteConfig replaces the server's configuration file. {DIR} in texts stands for its folder.
func (s *Server) WriteConfig(t *testing.T, settings Settings) {
	t.Helper()
	store, keys := settings.Store, settings.Keys
	if store == "" {
		store = defaultStore()
	}
	if keys == "" {
		keys = `KeyManager "memory" { plugin_data {} }`
	}
	address, bindPort := settings.BindAddress, settings.BindPort
	if address == "" {
		address = "127.0.0.1"
	}
	if bindPort == "" {
		bindPort = fmt.Sprint(port(t))
	}
	text := fmt.Sprintf(`server {
    trust_domain = %q
    data_dir = "{DIR}/data"
    socket_path = %q
    bind_address = %q
    bind_port = %s
    log_level = "DEBUG"
    %s
}
plugins {
    %s
    %s
    NodeAttestor "join_token" { plugin_data {} }
    %s
}
%s
`, s.TrustDomain, s.Socket, address, bindPort, settings.Server, store, keys, settings.Plugins, settings.Below)
	s.WriteFile(t, "server.conf", strings.ReplaceAll(text, "{DIR}", s.Dir))
}

// WriteFile puts a file into the server's folder and returns its path.
func (s *Server) WriteFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.Dir, name)
	Must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func defaultStore() string {
	if block := os.Getenv(storeVariable); block != "" {
		return block
	}
	return `DataStore "memory" { plugin_data {} }`
}

// Listen listens on a free port of the loopback address.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	return listener
}

// port is the one to bind: ours picks a free one by itself, others are given one.
func port(t *testing.T) int {
	if !Stock() {
		return 0
	}
	listener := Listen(t)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// Boot starts the process of a prepared or stopped server.
func (s *Server) Boot(t *testing.T, flags ...string) {
	t.Helper()
	s.Spawn(t, nil, flags...)
	s.await(t)
}

// Spawn starts the process and does not wait for anything; the environment is added to ours.
func (s *Server) Spawn(t *testing.T, environment []string, flags ...string) {
	t.Helper()
	s.log, s.ended = &Log{}, make(chan struct{})
	command := exec.Command(Binary(), append([]string{"run", "-config", s.ConfigPath}, flags...)...)
	command.Dir = s.Dir
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = s.log, s.log
	Must(t, command.Start())
	// There is nothing to stop before this.
	s.command = command
	go func(ended chan struct{}) {
		_ = command.Wait()
		close(ended)
	}(s.ended)
}

var addressPattern = regexp.MustCompile(`address"?[=:]"?([0-9.:\[\]]+)"?`)

// await looks at the log until both listeners are there.
func (s *Server) await(t *testing.T) {
	t.Helper()
	s.AwaitServing(t)
	for line := range strings.Lines(s.Log()) {
		if isStart(line, "tcp") {
			s.Address = addressPattern.FindStringSubmatch(line)[1]
			return
		}
	}
	t.Fatalf("no address in the log:\n%s", s.log)
}

// AwaitServing waits for the lines that say that both listeners are there, in either format.
func (s *Server) AwaitServing(t *testing.T) {
	t.Helper()
	Eventually(t, "the server serves", func() bool {
		lines := strings.Split(s.Log(), "\n")
		isStarted := func(network string) bool {
			return slices.ContainsFunc(lines, func(line string) bool { return isStart(line, network) })
		}
		serves := isStarted("tcp") && isStarted("unix")
		if !serves && s.HasEnded() {
			t.Fatalf("the server ended before it served:\n%s", s.log)
		}
		return serves
	})
}

// isStart tells whether a log line says that the listener of a network is there.
func isStart(line, network string) bool {
	isOf := strings.Contains(line, "network="+network) || strings.Contains(line, `"network":"`+network+`"`)
	return isOf && strings.Contains(line, "Starting Server APIs")
}

// AwaitLog waits until the server has logged a text, and returns all it has logged.
func (s *Server) AwaitLog(t *testing.T, text string) string {
	t.Helper()
	var log string
	Eventually(t, fmt.Sprintf("the server logs %q", text), func() bool {
		log = s.log.String()
		if !strings.Contains(log, text) && s.HasEnded() {
			t.Fatalf("the server ended before it logged %q:\n%s", text, s.log)
		}
		return strings.Contains(log, text)
	})
	return log
}

// Log is what the server has printed since its last start.
func (s *Server) Log() string { return s.log.String() }

// HasEnded tells whether the process is gone.
func (s *Server) HasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Signal sends a signal to the process.
func (s *Server) Signal(t *testing.T, signal os.Signal) {
	t.Helper()
	Must(t, s.command.Process.Signal(signal))
}

// Stop ends the process and waits for it.
func (s *Server) Stop() {
	if s.local != nil {
		_ = s.local.Close()
		s.local = nil
	}
	if s.command == nil {
		return
	}
	_ = s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(15 * time.Second):
		_ = s.command.Process.Kill()
		<-s.ended
	}
	s.command = nil
}

// Refuses starts a server that must not come up, and returns what it printed. Each text has to be in it.
func Refuses(t *testing.T, settings Settings, texts ...string) string {
	t.Helper()
	server := Prepare(t, settings)
	server.Spawn(t, nil)
	select {
	case <-server.ended:
	case <-time.After(Patience):
		t.Fatalf("the server starts with what it must refuse:\n%s", server.log)
	}
	if code := server.command.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d, not 1", code)
	}
	log := server.log.String()
	if Stock() {
		// That it refuses is SPIRE's behaviour; that it names the key is ours.
		return log
	}
	for _, text := range texts {
		if !strings.Contains(log, text) {
			t.Errorf("%q is not in the refusal:\n%s", text, log)
		}
	}
	return log
}

// Eventually looks until something has come true.
func Eventually(t *testing.T, what string, isSo func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !isSo() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Must ends the test when something failed that is not under test.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
