package harness

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Provider is a process that shows a server's keys to OpenID Connect clients.
type Provider struct {
	Dir     string
	Address string

	process *Child
}

// Child is a process of a test that logs.
type Child struct {
	command *exec.Cmd
	log     *Log
	ended   chan struct{}
}

// Launch starts a process that ends with the test.
func Launch(t *testing.T, dir string, environment []string, words ...string) *Child {
	t.Helper()
	child := &Child{command: exec.Command(words[0], words[1:]...), log: &Log{}, ended: make(chan struct{})}
	child.command.Dir = dir
	child.command.Env = append(os.Environ(), environment...)
	child.command.Stdout, child.command.Stderr = child.log, child.log
	Must(t, child.command.Start())
	go func() {
		_ = child.command.Wait()
		close(child.ended)
	}()
	t.Cleanup(child.Stop)
	return child
}

// Stop ends the process and waits for it.
func (c *Child) Stop() {
	_ = c.command.Process.Signal(os.Interrupt)
	select {
	case <-c.ended:
	case <-time.After(15 * time.Second):
		_ = c.command.Process.Kill()
		<-c.ended
	}
}

// Signal sends a signal to the process.
func (c *Child) Signal(t *testing.T, signal os.Signal) {
	t.Helper()
	Must(t, c.command.Process.Signal(signal))
}

// Log is what the process has printed so far.
func (c *Child) Log() string { return c.log.String() }

// Await waits until the process has printed a text.
func (c *Child) Await(t *testing.T, text string) {
	t.Helper()
	Eventually(t, "the log says "+text, func() bool {
		ended := false
		select {
		case <-c.ended:
			ended = true
		default:
		}
		said := strings.Contains(c.Log(), text)
		if ended && !said {
			t.Fatalf("the process ended before it said %q:\n%s", text, c.log)
		}
		return said
	})
}

// SpindleBinary is the program that the provider is a command of.
func SpindleBinary() string { return filepath.Join(filepath.Dir(Binary()), "spindle") }

// Provide starts a provider in the server's folder; {DIR} and {SOCKET} stand for the folder and the server's socket.
func (s *Server) Provide(t *testing.T, environment []string, config string) *Provider {
	t.Helper()
	config = strings.NewReplacer("{DIR}", s.Dir, "{SOCKET}", s.Socket).Replace(config)
	path := s.WriteFile(t, "oidc.conf", config)
	process := Launch(t, s.Dir, environment, SpindleBinary(), "oidc-discovery-provider", "-config", path)
	provider := &Provider{Dir: s.Dir, process: process}
	process.Await(t, "Serving HTTP")
	for line := range strings.Lines(process.Log()) {
		if strings.Contains(line, "Serving HTTP") {
			if found := addressPattern.FindStringSubmatch(line); found != nil {
				provider.Address = found[1]
			}
		}
	}
	return provider
}

// Process is the provider's process.
func (p *Provider) Process() *Child { return p.process }

// Answer is what a provider said.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Get asks for a path below http, or https when there is a TLS configuration, at the provider's address.
func (p *Provider) Get(t *testing.T, host, path string, header http.Header, config *tls.Config) Answer {
	t.Helper()
	answer, err := p.TryGet(host, path, header, config)
	Must(t, err)
	return answer
}

// TryGet is Get for what may fail.
func (p *Provider) TryGet(host, path string, header http.Header, config *tls.Config) (Answer, error) {
	return GetFrom("tcp", p.Address, host, path, header, config)
}

// GetFrom asks whoever listens at a TCP address or a Unix socket.
func GetFrom(network, address, host, path string, header http.Header, config *tls.Config) (Answer, error) {
	dial := func() (net.Conn, error) { return net.DialTimeout(network, address, Patience) }
	transport := &http.Transport{
		Dial:            func(string, string) (net.Conn, error) { return dial() },
		TLSClientConfig: config, DisableKeepAlives: true,
	}
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	request, err := http.NewRequest(http.MethodGet, scheme+"://"+host+path, nil)
	if err != nil {
		return Answer{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := (&http.Client{Transport: transport, Timeout: Patience}).Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Answer{response.StatusCode, response.Header, string(body)}, err
}

// FreePort is one that was free a moment ago.
func FreePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
