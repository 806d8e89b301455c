package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Warnings are what can be right and mostly is not, each in one line with what to do. Call it on a valid Config.
func (c *Config) Warnings() []string {
	var all []string
	warn := func(path, format string, args ...any) { all = append(all, path+": "+fmt.Sprintf(format, args...)) }

	if host, _, err := net.SplitHostPort(c.Webhook.Listen); err == nil && everywhere(host) {
		warn("webhook.listen", "%s takes connections from everywhere, without TLS: listen on 127.0.0.1 behind a proxy with TLS, or let only GitHub's addresses through", c.Webhook.Listen)
	}
	for i, e := range c.Proxmox.Endpoints {
		if inClear(e) {
			warn(fmt.Sprintf("proxmox.endpoints[%d]", i), "the API token goes to %s unencrypted: use https", e)
		}
	}
	for path, u := range map[string]string{"github.url": c.GitHub.URL, "github.api": c.GitHub.API} {
		if inClear(u) {
			warn(path, "the access token goes to %s unencrypted: use https", u)
		}
	}
	if c.Proxmox.Fingerprint != "" && len(c.Proxmox.Endpoints) > 1 {
		warn("proxmox.fingerprint", "it fits one endpoint's certificate only, and there are %d: use ca_file", len(c.Proxmox.Endpoints))
	}
	sum := 0
	for i, p := range c.Pools {
		sum += p.Max
		path := fmt.Sprintf("pools[%d].labels", i)
		if !slices.ContainsFunc(p.Labels, distinguishes) {
			warn(path, "every Windows job asks for these: add a label of pool %s's own, such as win11", p.Name)
		}
		if !slices.ContainsFunc(p.Labels, func(l string) bool { return strings.EqualFold(l, "self-hosted") }) {
			warn(path, "self-hosted is not among them: jobs that ask for it do not come to pool %s", p.Name)
		}
		for _, o := range c.Pools[:i] {
			if sameLabels(o.Labels, p.Labels) {
				warn(path, "pool %s has the same and comes first: pool %s never gets a job", o.Name, p.Name)
			}
		}
	}
	if v := c.Proxmox.VMIDs; v.To-v.From+1 < idsWanted(sum) {
		warn("proxmox.vmids", "%s is narrow for pools of %d runners in all: make it at least %d wide, so that an id rests before it is used again", v, sum, idsWanted(sum))
	}
	if c.Simulation.Speed != 1 {
		warn("simulation.speed", "%v is for use against `mayfly sim` only: leave it out elsewhere", c.Simulation.Speed)
	}
	slices.Sort(all)
	return all
}

func distinguishes(label string) bool {
	return !slices.Contains([]string{"self-hosted", "windows", "x64"}, strings.ToLower(label))
}

func sameLabels(a, b []string) bool {
	in := func(b []string) func(string) bool {
		return func(l string) bool {
			return !slices.ContainsFunc(b, func(o string) bool { return strings.EqualFold(l, o) })
		}
	}
	return !slices.ContainsFunc(a, in(b)) && !slices.ContainsFunc(b, in(a))
}

func everywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func inClear(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "http" && !loopback(u.Hostname())
}
