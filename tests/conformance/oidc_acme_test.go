package conformance

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "spindle-conformance/harness"
)

// acmeServer is Pebble, Let's Encrypt's own test server, with a name server that answers 127.0.0.1 to everything.
type acmeServer struct {
	process    *Child
	directory  string
	management string
	trusted    *tls.Config
	// Environment that makes a provider trust it.
	environment []string
}

// startACME builds Pebble and starts it. Its checks go to tlsPort.
func startACME(t *testing.T, s *Server, tlsPort int) *acmeServer {
	t.Helper()
	build := exec.Command("go", "build", "-mod=readonly", "-o", s.Dir+"/", "github.com/letsencrypt/pebble/v2/cmd/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv")
	build.Dir = "pebble"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build pebble: %v\n%s", err, out)
	}
	ports := make([]int, 4)
	for i := range ports {
		ports[i] = FreePort(t)
	}
	local := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	server := &acmeServer{directory: "https://" + local(0) + "/dir", management: "https://" + local(1)}
	server.certify(t, s)
	config := s.WriteFile(t, "pebble.json", fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": %q, "certificate": %q, "privateKey": %q,
		"httpPort": 1, "tlsPort": %d}}`, local(0), local(1), s.Dir+"/acme.pem", s.Dir+"/acme.key", tlsPort))
	Launch(t, s.Dir, nil, s.Dir+"/pebble-challtestsrv", "-dnsserver", local(2), "-management", local(3), "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	Eventually(t, "the name server listens", func() bool {
		conn, err := net.Dial("tcp", local(3))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	// Without pauses before checks, and with nothing refused or reused at random: Pebble's ways to find impatient clients.
	environment := []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}
	server.process = Launch(t, s.Dir, environment, s.Dir+"/pebble", "-config", config, "-dnsserver", local(2))
	server.process.Await(t, "Listening on")
	Eventually(t, "the ACME server answers", func() bool {
		_, err := server.client().Get(server.directory)
		return err == nil
	})
	return server
}

// certify makes the certificate that Pebble itself shows, and trusts it.
func (a *acmeServer) certify(t *testing.T, s *Server) {
	t.Helper()
	key := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	Must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	Must(t, err)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	path := s.WriteFile(t, "acme.pem", certificate)
	s.WriteFile(t, "acme.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	a.environment = []string{"SSL_CERT_FILE=" + path}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	a.trusted = &tls.Config{RootCAs: roots}
}

func (a *acmeServer) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: a.trusted}, Timeout: Patience}
}

// roots is what trusts the certificates that Pebble issues.
func (a *acmeServer) roots(t *testing.T) *tls.Config {
	t.Helper()
	response, err := a.client().Get(a.management + "/roots/0")
	Must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	Must(t, err)
	roots := x509.NewCertPool()
	True(t, "a root", roots.AppendCertsFromPEM(text))
	return &tls.Config{RootCAs: roots}
}

// served is the leaf that a provider shows for a name.
func served(p *Provider, config *tls.Config, name string) (*x509.Certificate, error) {
	named := config.Clone()
	named.ServerName = name
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: Patience}, "tcp", p.Address, named)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func oidcACME(t *testing.T) {
	s := Start(t, Settings{})
	port := FreePort(t)
	acme := startACME(t, s, port)
	config := oidcDomains + oidcSource + fmt.Sprintf("acme {\n email = \"admin@oidc.test\"\n tos_accepted = true\n cache_dir = \"{DIR}/cache\"\n directory_url = %q\n addr = \"127.0.0.1:%d\"\n}",
		acme.directory, port)
	p := s.Provide(t, acme.environment, config)
	roots := acme.roots(t)
	leaves := map[string]*x509.Certificate{}
	for _, name := range []string{"oidc.test", "other.test"} {
		Eventually(t, "a certificate for "+name, func() bool {
			leaf, err := served(p, roots, name)
			leaves[name] = leaf
			return err == nil
		})
		Equal(t, "names", leaves[name].DNSNames, []string{name})
		Equal(t, "issuer", metadata(t, p.Get(t, name, oidcDiscovery, nil, roots)).Issuer, "https://"+name)
	}
	_, err := served(p, roots, "evil.test")
	True(t, "no certificate for another name", err != nil)
	_, err = served(p, &tls.Config{RootCAs: roots.RootCAs, NextProtos: []string{"acme-tls/1"}}, "oidc.test")
	True(t, "no answer to a check that nobody asked for", err != nil)

	// Account and certificates outlive the process, and the files are the owner's alone.
	p.Process().Stop()
	files, err := os.ReadDir(filepath.Join(s.Dir, "cache"))
	Must(t, err)
	Equal(t, "files", len(files), 3)
	for _, file := range files {
		info, err := file.Info()
		Must(t, err)
		Equal(t, file.Name(), info.Mode().Perm(), os.FileMode(0o600))
	}
	again := s.Provide(t, acme.environment, config)
	leaf, err := served(again, roots, "oidc.test")
	Must(t, err)
	Equal(t, "serial number", leaf.SerialNumber.String(), leaves["oidc.test"].SerialNumber.String())
	again.Process().Stop()

	// A lost certificate is asked for with the kept account.
	Must(t, os.Remove(filepath.Join(s.Dir, "cache", "oidc.test")))
	third := s.Provide(t, acme.environment, config)
	Eventually(t, "a new certificate", func() bool {
		leaf, err := served(third, roots, "oidc.test")
		return err == nil && leaf.SerialNumber.Cmp(leaves["oidc.test"].SerialNumber) != 0
	})
	True(t, "no second account", !strings.Contains(third.Process().Log(), "ACME account made"))
	acmeRefusals(t)
}

func acmeRefusals(t *testing.T) {
	block := func(lines string) string { return oidcDomains + oidcSource + "acme {\n" + lines + "\n}" }
	refusedProvider(t, block(`email = "a@b.test"`), "acme.tos_accepted", "must be set to true")
	refusedProvider(t, block(`tos_accepted = true`), "acme.email")
	refusedProvider(t, block("tos_accepted = true\nemail = \"a@b.test\"\ndirectory_url = \"http://ca.test\""), "acme.directory_url")
}
