package conformance

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("CFG-PLUGINS", pluginBlocks)
	absent("CFG-PLUGINS-EXTERNAL", externalPlugins)
	holds("CFG-PLUGINS-DATA_FILE", pluginDataFile)
	holds("PLUGIN-DATASTORE-SQL", sqlStore)
	holds("PLUGIN-KEYMANAGER-DISK", diskKeys)
	holds("PLUGIN-KEYMANAGER-MEMORY", memoryKeys)
	holds("PLUGIN-NODEATTESTOR-JOIN_TOKEN", joinTokens)
	holds("PLUGIN-NODEATTESTOR-X509POP", x509pop)
	holds("PLUGIN-UPSTREAMAUTHORITY-DISK", diskUpstream)
	for kind, names := range map[string][]string{
		"KeyManager":         {"aws_kms", "gcp_kms", "azure_key_vault", "hashicorp_vault"},
		"NodeAttestor":       {"sshpop", "http_challenge", "k8s_psat", "tpm_devid", "aws_iid", "gcp_iit", "azure_msi", "azure_imds"},
		"UpstreamAuthority":  {"spire", "awssecret", "aws_pca", "gcp_cas", "vault", "cert-manager", "ejbca"},
		"Notifier":           {"k8sbundle", "gcs_bundle"},
		"BundlePublisher":    {"aws_s3", "gcp_cloudstorage", "azure_blob", "aws_rolesanywhere_trustanchor", "k8s_configmap"},
		"CredentialComposer": {"uniqueid"},
	} {
		for _, name := range names {
			id := strings.ToUpper("PLUGIN-" + kind + "-" + strings.ReplaceAll(name, "-", "_"))
			absent(id, func(t *testing.T) { absentPlugin(t, kind, name) })
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// absentPlugin is one that SPIRE has: it is known by name, and said not to be there.
func absentPlugin(t *testing.T, kind, name string) {
	block := fmt.Sprintf("%s %q { plugin_data {} }", kind, name)
	settings := Settings{Plugins: block}
	if kind == "KeyManager" {
		settings = Settings{Keys: block}
	}
	log := Refuses(t, settings, kind, name)
	True(t, "a plugin that SPIRE has is not called unknown: "+log, !strings.Contains(log, "did you mean"))
}

func pluginBlocks(t *testing.T) {
	s := Prepare(t, Settings{})
	s.WriteConfig(t, Settings{
		Keys:    `KeyManager "disk" { enabled = true plugin_data { keys_path = "{DIR}/keys.json" } }`,
		Plugins: `UpstreamAuthority "disk" { enabled = false plugin_data { cert_file_path = "/none" key_file_path = "/none" } }`,
	})
	s.Boot(t)
	_, err := os.Stat(filepath.Join(s.Dir, "keys.json"))
	Must(t, err)
	Refuses(t, Settings{Plugins: `KeyManager "memory" { plugin_data {} }`}, "KeyManager")
	Refuses(t, Settings{Plugins: `NodeAttestor "no_such_plugin" { plugin_data {} }`}, "no_such_plugin")
	Refuses(t, Settings{Plugins: `NoSuchType "x" { plugin_data {} }`}, "NoSuchType")
	if !Stock() {
		Refuses(t, Settings{Keys: `KeyManager "disk" { plugin_data { keys_path = "/x" no_such_key = 1 } }`}, "no_such_key")
	}
}

func externalPlugins(t *testing.T) {
	Refuses(t, Settings{Keys: `KeyManager "mine" { plugin_cmd = "/bin/true" plugin_data {} }`}, "mine")
	for _, line := range []string{`plugin_cmd = "/bin/true"`, `plugin_args = ["x"]`, `plugin_checksum = "00"`} {
		Refuses(t, Settings{Keys: fmt.Sprintf(`KeyManager "disk" { %s plugin_data { keys_path = "/x" } }`, line)}, strings.Fields(line)[0])
	}
}

func pluginDataFile(t *testing.T) {
	s := Prepare(t, Settings{Keys: `KeyManager "disk" { plugin_data_file = "{DIR}/keys.hcl" }`})
	s.WriteFile(t, "keys.hcl", `keys_path = "`+filepath.Join(s.Dir, "keys.json")+`"`)
	s.Boot(t)
	_, err := os.Stat(filepath.Join(s.Dir, "keys.json"))
	Must(t, err)
	Refuses(t, Settings{Keys: `KeyManager "disk" { plugin_data_file = "/nonexistent" }`}, "/nonexistent")
	both := "KeyManager \"disk\" {\n plugin_data_file = \"/x\"\n plugin_data {}\n}"
	Refuses(t, Settings{Keys: both}, "plugin_data_file")
	nodesFile(t)
	upstreamFile(t)
}

// nodesFile changes whose nodes may attest while the server runs.
func nodesFile(t *testing.T) {
	s := Prepare(t, Settings{})
	first, second := newNode(t, s), newNode(t, s)
	data := func(n *node) string { return fmt.Sprintf("ca_bundle_path = %q", n.bundle) }
	file := s.WriteFile(t, "nodes.hcl", data(first))
	s.WriteConfig(t, Settings{Server: "ratelimit { attestation = false }", Plugins: fmt.Sprintf(`NodeAttestor "x509pop" { plugin_data_file = %q }`, file)})
	s.Boot(t)
	first.attest(t, s)
	_, err := second.tryAttest(t, s)
	True(t, "the others' nodes are refused", err != nil)

	// What cannot be used is logged, and everything goes on as it was.
	s.WriteFile(t, "nodes.hcl", `ca_bundle_path = "/nonexistent"`)
	s.Signal(t, syscall.SIGUSR1)
	s.AwaitLog(t, map[bool]string{true: "Failed to reconfigure plugin", false: "configuration not reloaded"}[Stock()])
	first.attest(t, s)
	s.WriteFile(t, "nodes.hcl", data(second))
	s.Signal(t, syscall.SIGUSR1)
	s.AwaitLog(t, "Plugin reconfigured")
	second.attest(t, s)
	_, err = first.tryAttest(t, s)
	True(t, "the first node is refused by now", err != nil)
}

// upstreamFile changes who signs the next authority.
func upstreamFile(t *testing.T) {
	s := Prepare(t, Settings{})
	first, second := signer(t, s, "first"), signer(t, s, "second")
	file := s.WriteFile(t, "upstream.hcl", first.data)
	s.WriteConfig(t, Settings{Plugins: fmt.Sprintf(`UpstreamAuthority "disk" { plugin_data_file = %q }`, file)})
	s.Boot(t)
	Equal(t, "who signed", x509Family.prepare(t, s).UpstreamAuthoritySubjectKeyId, first.keyID)
	s.WriteFile(t, "upstream.hcl", second.data)
	s.Signal(t, syscall.SIGUSR1)
	s.AwaitLog(t, "Plugin reconfigured")
	Equal(t, "who signs now", x509Family.prepare(t, s).UpstreamAuthoritySubjectKeyId, second.keyID)
}

type upstreamSigner struct{ data, keyID string }

// signer writes an upstream authority that is its own root, and returns the plugin's settings for it.
func signer(t *testing.T, s *Server, name string) upstreamSigner {
	t.Helper()
	certificate, key := Authority(t, "upstream.example")
	der, err := x509.MarshalPKCS8PrivateKey(key)
	Must(t, err)
	write := func(kind string, der []byte) string {
		return s.WriteFile(t, name+"-"+strings.ToLower(kind[:4]), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	data := fmt.Sprintf("cert_file_path = %q\nkey_file_path = %q", write("CERTIFICATE", certificate.Raw), write("PRIVATE KEY", der))
	return upstreamSigner{data, fmt.Sprintf("%x", certificate.SubjectKeyId)}
}

func sqlStore(t *testing.T) {
	s := Start(t, Settings{Store: `DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "{DIR}/data/datastore.sqlite3" } }`})
	create(t, s, entry("/n", "/kept", "a:1"))
	s.Stop()
	s.Boot(t)
	s.Run(t, "entry", "show").Succeeds(t, "spiffe://example.org/kept")
	if Stock() {
		return
	}
	Equal(t, "the number of lines that say what takes its place", strings.Count(s.Log(), "sqlite3"), 1)
	for _, kind := range []string{"postgres", "mysql"} {
		Refuses(t, Settings{Store: fmt.Sprintf(`DataStore "sql" { plugin_data { database_type = %q connection_string = "x" } }`, kind)}, kind)
	}
}

func diskKeys(t *testing.T) {
	s := Start(t, Settings{Keys: `KeyManager "disk" { plugin_data { keys_path = "{DIR}/keys.json" } }`, Store: outliving()})
	path := filepath.Join(s.Dir, "keys.json")
	about, err := os.Stat(path)
	Must(t, err)
	Equal(t, "who may read the keys", about.Mode().Perm(), os.FileMode(0o600))
	text, err := os.ReadFile(path)
	Must(t, err)
	var file struct{ Keys map[string]string }
	Must(t, json.Unmarshal(text, &file))
	for _, name := range []string{"x509-CA-A", "JWT-Signer-A"} {
		der, err := base64.StdEncoding.DecodeString(file.Keys[name])
		True(t, name+" is in the file", err == nil && len(der) > 0)
	}
	before := rootOf(t, s)
	s.Stop()
	s.Boot(t)
	True(t, "the authority is the same after a restart", rootOf(t, s).Equal(before))
}

// outliving is a store that outlives its process.
func outliving() string {
	if Stock() {
		return ""
	}
	return `DataStore "sled" { plugin_data {} }`
}

func memoryKeys(t *testing.T) {
	s := Start(t, Settings{Store: outliving()})
	before := s.Mint(t, "/w", 0)
	s.Stop()
	s.Boot(t)
	after := s.Mint(t, "/w", 0)
	True(t, "a restart makes a new authority", string(before.Leaf().AuthorityKeyId) != string(after.Leaf().AuthorityKeyId))
	s.Verify(t, before)
}

func joinTokens(t *testing.T) {
	s := Prepare(t, Settings{})
	text, err := os.ReadFile(s.ConfigPath)
	Must(t, err)
	s.WriteFile(t, "server.conf", strings.ReplaceAll(string(text), `NodeAttestor "join_token" { plugin_data {} }`, ""))
	s.Boot(t)
	agent := s.Attest(t)
	Must(t, knock(t, agent))
}

func diskUpstream(t *testing.T) {
	s, first, replace := upstream(t)
	minted := s.Mint(t, "/w", 0)
	s.Verify(t, minted)
	Equal(t, "the length of the chain", len(minted.Chain), 2)
	Equal(t, "the signer of the authority", fmt.Sprintf("%x", minted.Chain[1].AuthorityKeyId), first)
	True(t, "the authority is one of the trust domain", minted.Chain[1].IsCA && minted.Chain[1].URIs[0].String() == "spiffe://example.org")
	second := replace()
	next := x509Family.prepare(t, s)
	Equal(t, "the upstream after the files were replaced", next.UpstreamAuthoritySubjectKeyId, second)
	True(t, "both roots are in the bundle", len(s.Bundle(t).X509Authorities) == 2)
	Refuses(t, Settings{Plugins: `UpstreamAuthority "disk" { plugin_data { cert_file_path = "/none.pem" key_file_path = "/none.key" } }`}, "none.")
	Refuses(t, Settings{Plugins: `UpstreamAuthority "disk" { plugin_data {} }`}, "cert_file_path")
	Refuses(t, Settings{Plugins: "UpstreamAuthority \"disk\" { plugin_data { cert_file_path = \"/a\" key_file_path = \"/b\" } }\nUpstreamAuthority \"spire\" { plugin_data {} }"}, "UpstreamAuthority")
}

func x509pop(t *testing.T) {
	s := Prepare(t, Settings{})
	node := newNode(t, s)
	s.WriteConfig(t, Settings{Server: "ratelimit { attestation = false }", Plugins: fmt.Sprintf(`NodeAttestor "x509pop" { plugin_data { ca_bundle_path = %q } }`, node.bundle)})
	s.Boot(t)
	agent := node.attest(t, s)
	Equal(t, "the ID", agent.ID.Path, "/spire/agent/x509pop/"+node.fingerprint)
	shown := s.Run(t, "agent", "show", "-spiffeID", Uri(agent.ID)).Succeeds(t)
	label(t, shown, "Can re-attest", "true")
	for _, value := range []string{"x509pop:subject:cn:node", "x509pop:serialnumber:", "x509pop:ca:fingerprint:"} {
		True(t, value+" is among the selectors", strings.Contains(shown.Out, value))
	}
	// A node alias by such a selector gives the agent what hangs below the alias.
	alias := entry("/spire/server", "/nodes", "x509pop:subject:cn:node")
	create(t, s, alias, entry("/nodes", "/w", "a:1"))
	Eventually(t, "the agent has the alias's entry", func() bool { return len(authorizedOf(t, agent, nil)) == 1 })
	evict(t, s, agent)
	Refused(t, knock(t, agent), codes.PermissionDenied)
	again := node.attest(t, s)
	Must(t, knock(t, again))
	_, err := renew(t, again)
	Refused(t, err, codes.PermissionDenied)
	stranger := newNode(t, s)
	_, err = stranger.tryAttest(t, s)
	True(t, "a certificate of another authority is refused", err != nil)
	ban(t, s, again)
	_, err = node.tryAttest(t, s)
	Refused(t, err, codes.PermissionDenied, "agent is banned")
}
