package conformance

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-PLUGIN-KEYMANAGER-DISK", agentDiskKeys)
	holds("AGENT-PLUGIN-KEYMANAGER-MEMORY", agentMemoryKeys)
	holds("AGENT-PLUGIN-NODEATTESTOR-JOIN_TOKEN", agentByToken)
	holds("AGENT-PLUGIN-NODEATTESTOR-X509POP", agentByCertificate)
	holds("AGENT-PLUGIN-WORKLOADATTESTOR-UNIX", agentUnix)
	absent("AGENT-PLUGIN-WORKLOADATTESTOR-K8S", func(t *testing.T) {
		// It looks up pods that brokers name, and nothing else: without brokers it would do nothing.
		invalid(t, AgentSettings{Plugins: `WorkloadAttestor "k8s" { plugin_data {} }`}, "k8s")
	})
	for id, plugin := range map[string]string{
		"NODEATTESTOR-SSHPOP": "sshpop", "NODEATTESTOR-HTTP_CHALLENGE": "http_challenge", "NODEATTESTOR-K8S_PSAT": "k8s_psat",
		"NODEATTESTOR-TPM_DEVID": "tpm_devid", "NODEATTESTOR-AWS_IID": "aws_iid", "NODEATTESTOR-GCP_IIT": "gcp_iit",
		"NODEATTESTOR-AZURE_MSI": "azure_msi", "NODEATTESTOR-AZURE_IMDS": "azure_imds",
	} {
		absent("AGENT-PLUGIN-"+id, func(t *testing.T) { absentAgentPlugin(t, "NodeAttestor", plugin) })
	}
	for _, plugin := range []string{"docker", "systemd", "slurm", "windows"} {
		absent("AGENT-PLUGIN-WORKLOADATTESTOR-"+strings.ToUpper(plugin), func(t *testing.T) { absentAgentPlugin(t, "WorkloadAttestor", plugin) })
	}
	for _, plugin := range []string{"aws_secretsmanager", "gcp_secretmanager"} {
		absent("AGENT-PLUGIN-SVIDSTORE-"+strings.ToUpper(plugin), func(t *testing.T) { absentAgentPlugin(t, "SVIDStore", plugin) })
	}
}

func absentAgentPlugin(t *testing.T, kind, name string) {
	block := fmt.Sprintf("%s %q { plugin_data {} }", kind, name)
	settings := AgentSettings{Plugins: block}
	if kind == "NodeAttestor" {
		settings = AgentSettings{Node: block}
	}
	result := PrepareAgent(t, Start(t, Settings{}), settings).Validate(t).Fails(t, 1, kind, name)
	True(t, "a plugin that SPIRE has is not called unknown: "+result.Err, !strings.Contains(result.Err, "did you mean"))
}

func agentDiskKeys(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	path := filepath.Join(agent.Dir, "data", "keys.json")
	hasMode(t, path, 0o600)
	text, err := os.ReadFile(path)
	Must(t, err)
	var file struct{ Keys map[string][]byte }
	Must(t, json.Unmarshal(text, &file))
	True(t, "the key has SPIRE's name", len(file.Keys["agent-svid-A"])+len(file.Keys["agent-svid-B"]) > 0)
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	// A restart goes on with the identity that there is: the token is spent.
	agent.Stop()
	agent.Boot(t)
	agent.AwaitFetch(t, "/w")
}

func agentMemoryKeys(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	text, err := os.ReadFile(agent.ConfigPath)
	Must(t, err)
	disk := fmt.Sprintf(`KeyManager "disk" { plugin_data { directory = %q } }`, filepath.Join(agent.Dir, "data"))
	agent.WriteFile(t, "agent.conf", strings.Replace(string(text), disk, `KeyManager "memory" { plugin_data {} }`, 1))
	agent.Boot(t)
	_, err = os.Stat(filepath.Join(agent.Dir, "data", "keys.json"))
	True(t, "no key is on disk", os.IsNotExist(err))
	agent.Stop()
	agent.Spawn(t)
	agent.AwaitEnd(t)
}

func agentByToken(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{})
	label(t, server.Run(t, "agent", "show", "-spiffeID", "spiffe://example.org/spire/agent/join_token/"+agent.Token).Succeeds(t), "Can re-attest", "false")
	// A token is good for one agent.
	other := PrepareAgent(t, server, AgentSettings{WithoutToken: true})
	other.Spawn(t, "-joinToken", agent.Token)
	if !StockAgent() {
		other.AwaitEnd(t)
	}
}

func agentByCertificate(t *testing.T) {
	server, _, agent := attestsAgain(t, "")
	agent.Boot(t)
	path, _ := At(server.Run(t, "agent", "list", "-output", "json").JSON(t), "agents", 0, "id", "path").(string)
	True(t, "the ID is made of the certificate: "+path, strings.HasPrefix(path, "/spire/agent/x509pop/"))
	server.Run(t, "agent", "show", "-spiffeID", "spiffe://example.org"+path).Succeeds(t, "x509pop:subject:cn:node")
	// It comes back after an eviction, with the same name.
	server.Run(t, "agent", "evict", "-spiffeID", "spiffe://example.org"+path).Succeeds(t)
	Eventually(t, "the agent is there again", func() bool {
		if StockAgent() && agent.HasEnded() {
			agent.Spawn(t)
		}
		return server.Run(t, "agent", "show", "-spiffeID", "spiffe://example.org"+path).Status == 0
	})
	for _, data := range []string{"", `certificate_path = "/nonexistent"`, "certificate_path = \"/nonexistent\"\nprivate_key_path = \"/nonexistent\""} {
		broken := PrepareAgent(t, server, AgentSettings{WithoutToken: true, Node: "NodeAttestor \"x509pop\" { plugin_data {\n" + data + "\n} }"})
		broken.Spawn(t)
		if !StockAgent() {
			broken.AwaitEnd(t)
		}
	}
}

// agentUnix makes an entry for each selector that the process that asks has, and for some that it has not.
func agentUnix(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{})
	text, err := os.ReadFile(agent.ConfigPath)
	Must(t, err)
	write := func(data string) {
		agent.Stop()
		agent.WriteFile(t, "agent.conf", strings.Replace(string(text), `"unix" { plugin_data {} }`, `"unix" { plugin_data {`+"\n"+data+"\n} }", 1))
	}
	withData := func(data string) {
		write(data)
		agent.Boot(t)
	}
	binary, err := filepath.EvalSymlinks(AgentBinary())
	Must(t, err)
	program, err := os.ReadFile(binary)
	Must(t, err)
	me, err := user.Current()
	Must(t, err)
	group, err := user.LookupGroupId(me.Gid)
	Must(t, err)
	has := map[string]string{"/uid": "uid:" + me.Uid, "/user": "user:" + me.Username, "/gid": "gid:" + me.Gid, "/group": "group:" + group.Name}
	groups, err := os.Getgroups()
	Must(t, err)
	for _, gid := range groups[:min(1, len(groups))] {
		has["/supplementary-gid"] = fmt.Sprintf("supplementary_gid:%d", gid)
	}
	discovered := map[string]string{"/path": "path:" + binary, "/sha256": fmt.Sprintf("sha256:%x", sha256.Sum256(program))}
	hasNot := map[string]string{"/other-uid": "uid:4294967294", "/other-path": "path:/bin/true"}
	for _, all := range []map[string]string{has, discovered, hasNot} {
		for path, value := range all {
			agent.EntryFor(t, path, func(entry *types.Entry) { entry.Selectors = selectors("unix:" + value) })
		}
	}
	ids := func(sets ...map[string]string) (ids []string) {
		for _, set := range sets {
			for path := range set {
				ids = append(ids, "spiffe://example.org"+path+"\n")
			}
		}
		return ids
	}
	only := func(sets ...map[string]string) {
		t.Helper()
		expected := ids(sets...)
		result := agent.AwaitFetch(t, expected...)
		Equal(t, "how many identities", strings.Count(result.Out, "SPIFFE ID:"), len(expected))
	}
	only(has)
	withData("discover_workload_path = true")
	only(has, discovered)
	withData("discover_workload_path = true\nworkload_size_limit = -1")
	only(has, map[string]string{"/path": ""})
	// Beyond the size the whole attestor fails, and it is the only one: the agent itself is no better off.
	write("discover_workload_path = true\nworkload_size_limit = 10")
	agent.Spawn(t)
	Eventually(t, "nobody is attested", func() bool {
		result := agent.Run(t, "api", "fetch", "x509")
		return result.Status == 1 && strings.Contains(result.Err, "workload attestation failed")
	})
	write(`workload_size_limit = "large"`)
	agent.Spawn(t)
	agent.AwaitEnd(t)
}
