package pve

import (
	"strings"
	"time"
)

// agentWait is how long a ping waits for the agent (qemu-server 9.2: PVE::QemuServer::Agent, guest-ping).
const agentWait = 3 * time.Second

// agent runs a guest agent command: its preconditions in their order, then a ping that holds the
// worker until the agent answers, for at most three seconds, then the command itself.
func (c *Cluster) agent(r *request, command func(Guest) (any, *apiError)) (any, *apiError) {
	c.mu.Lock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		c.mu.Unlock()
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	configured, enabled := v.agent()
	run := v.run
	paused := run != nil && run.paused
	c.mu.Unlock()
	if !configured { // "agent: 0" passes here
		return nil, failed("No QEMU guest agent configured")
	}
	if run == nil {
		return nil, failed("VM %d is not running", r.vmid)
	}
	timer := time.NewTimer(c.scale(agentWait))
	defer timer.Stop()
	for {
		up, changed := run.guest.AgentUp()
		if up && enabled && !paused {
			return command(run.guest)
		}
		if !enabled || paused {
			changed = nil
		}
		select {
		case <-changed: // a ping that waits when the agent starts is answered at that moment (captured)
			continue
		case <-timer.C:
		case <-run.ended:
		case <-c.done:
		}
		return nil, failed("QEMU guest agent is not running")
	}
}

func (c *Cluster) agentPing(r *request) (any, *apiError) {
	return c.agent(r, func(Guest) (any, *apiError) {
		return map[string]any{"result": map[string]any{}}, nil
	})
}

func (c *Cluster) agentInterfaces(r *request) (any, *apiError) {
	return c.agent(r, func(g Guest) (any, *apiError) {
		rows := []map[string]any{}
		for _, n := range g.Interfaces() {
			ips := []map[string]any{}
			for _, p := range n.IPs {
				kind := "ipv4"
				if p.Addr().Is6() {
					kind = "ipv6"
				}
				ips = append(ips, map[string]any{"ip-address": p.Addr().String(), "ip-address-type": kind, "prefix": p.Bits()})
			}
			m := map[string]any{"name": n.Name, "ip-addresses": ips, "statistics": map[string]any{
				"rx-bytes": 2050, "rx-packets": 11, "rx-errs": 0, "rx-dropped": 0,
				"tx-bytes": 2448, "tx-packets": 14, "tx-errs": 0, "tx-dropped": 0,
			}}
			if n.MAC != "" { // the loopback of Windows has none
				m["hardware-address"] = strings.ToLower(n.MAC)
			}
			rows = append(rows, m)
		}
		return map[string]any{"result": rows}, nil
	})
}

func (c *Cluster) agentFileRead(r *request) (any, *apiError) {
	return c.agent(r, func(g Guest) (any, *apiError) {
		name := r.str("file", "")
		content, ok := g.ReadFile(name)
		if !ok {
			return nil, failed("Agent error: failed to open file '%s' (mode: 'r'): No such file or directory", name)
		}
		return map[string]any{"content": latin1(content), "bytes-read": len(content)}, nil
	})
}
