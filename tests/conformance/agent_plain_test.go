package conformance

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	. "spindle-conformance/harness"
)

// What an agent does with a server that is not ours.

func ownSelector() *types.Selector {
	return &types.Selector{Type: "unix", Value: fmt.Sprintf("uid:%d", os.Getuid())}
}

// agentAvailability looks at an agent's SVID that has been good for 14 hours and will be for 23: not at half of its life yet, and within the
// reach of a target of 24 hours.
func agentAvailability(t *testing.T) {
	validated(t, "", `availability_target = "23h"`, "availability_target")
	restarted := func(lines string) *PlainServer {
		server := StartPlain(t, -14*time.Hour, 23*time.Hour)
		agent := server.Agent(t, AgentSettings{Agent: lines + "\nexperimental { sync_interval = \"1s\" }"})
		agent.Boot(t)
		agent.Stop()
		agent.Boot(t)
		return server
	}
	demanding := restarted(`availability_target = "24h"`)
	Eventually(t, "the SVID is renewed", func() bool { return demanding.Calls("RenewAgent") > 0 })
	usual := restarted("")
	polls := usual.Calls("SyncAuthorizedEntries")
	Eventually(t, "some time has passed", func() bool { return usual.Calls("SyncAuthorizedEntries") > polls+6 })
	Equal(t, "how often the SVID of a usual agent was renewed", usual.Calls("RenewAgent"), 0)
}

func agentSyncInterval(t *testing.T) {
	experimentValidated(t, "", `sync_interval = "soon"`, "sync")
	server := StartPlain(t, -time.Minute, time.Hour)
	agent := server.Agent(t, AgentSettings{Agent: `experimental { sync_interval = "1s" }`})
	agent.Boot(t)
	// Nobody tells the agent: it asks.
	polls := server.Calls("SyncAuthorizedEntries")
	Eventually(t, "it asks again and again", func() bool { return server.Calls("SyncAuthorizedEntries") > polls+2 })
	server.AddEntry("w", ownSelector())
	agent.AwaitFetch(t, "spiffe://example.org/w")
}

func agentSyncKind(t *testing.T) {
	experimentValidated(t, "", `use_sync_authorized_entries = "perhaps"`, "use_sync_authorized_entries")
	for value, used := range map[string][2]string{
		"true":  {"SyncAuthorizedEntries", "GetAuthorizedEntries"},
		"false": {"GetAuthorizedEntries", "SyncAuthorizedEntries"},
	} {
		server := StartPlain(t, -time.Minute, time.Hour)
		server.AddEntry("w", ownSelector())
		agent := server.Agent(t, AgentSettings{Agent: "experimental { use_sync_authorized_entries = " + value + " }"})
		agent.Boot(t)
		agent.AwaitFetch(t, "spiffe://example.org/w")
		True(t, used[0]+" is called", server.Calls(used[0]) > 0)
		Equal(t, "calls of "+used[1], server.Calls(used[1]), 0)
	}
}
