package config

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	instanceName = regexp.MustCompile(`^[a-z0-9]{1,12}$`)
	poolName     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	// A Proxmox node's name is a DNS label; a resource pool's and a token's are Proxmox' own words.
	nodeName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	proxmoxPool = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)
	tokenID     = regexp.MustCompile(`^[^\s:/@!=]{1,60}@[A-Za-z][A-Za-z0-9._-]{1,31}![A-Za-z][A-Za-z0-9._-]{1,127}$`)
	isVariable  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// check adds what is wrong with c to r, as far as c alone tells.
func (c *Config) check(r *report) {
	if c.Instance == "" {
		r.bad("instance", "it is missing: write a word of 1–12 of a-z0-9, such as k3f9, and never change it")
	} else if !instanceName.MatchString(c.Instance) {
		r.bad("instance", "%q is not 1–12 of a-z0-9: write one such as k3f9", brief(c.Instance))
	}
	c.checkListen(r)
	if c.Webhook.SecretFile == "" {
		r.bad("webhook.secret_file", "it is missing: name the file that holds the webhook's secret")
	}
	if c.Store.Path == "" {
		r.bad("store.path", "it is empty: name a file, or leave the key out")
	}
	c.checkProxmox(r)
	c.checkGitHub(r)
	c.checkSSH(r)
	c.checkPools(r)
	r.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	r.oneOf("log.format", c.Log.Format, "text", "json")
	if !(c.Simulation.Speed >= 1 && c.Simulation.Speed <= 10000) {
		r.bad("simulation.speed", "%v is not from 1 to 10000: leave it out unless `mayfly sim` is what you run against", c.Simulation.Speed)
	}
}

func (c *Config) checkListen(r *report) {
	host, ok := r.hostPort("listen", c.Listen)
	if ok && !loopback(host) && c.Web.TokenFile == "" {
		r.bad("listen", "%s is reachable by others: name a file with a token in web.token_file, or listen on 127.0.0.1", c.Listen)
	}
	if _, ok := r.hostPort("webhook.listen", c.Webhook.Listen); ok && c.Webhook.Listen == c.Listen {
		r.bad("webhook.listen", "%s is the page's own address (listen): give the webhook another port", c.Webhook.Listen)
	}
}

func (c *Config) checkProxmox(r *report) {
	p := c.Proxmox
	if len(p.Endpoints) == 0 {
		r.bad("proxmox.endpoints", "it is missing: list the addresses of the API, such as [https://pve1:8006]")
	}
	for i, e := range p.Endpoints {
		path := fmt.Sprintf("proxmox.endpoints[%d]", i)
		if u, ok := r.url(path, e); ok && strings.Trim(u.Path, "/") != "" {
			r.bad(path, "%s has a path: leave out what follows the port", u)
		} else if ok && slices.Index(p.Endpoints, e) < i {
			r.bad(path, "%s is there twice: leave one out", u)
		}
	}
	switch {
	case p.TokenID == "":
		r.bad("proxmox.token", "it is missing: name the API token, such as mayfly@pve!mayfly")
	case strings.Contains(p.TokenID, "="):
		r.bad("proxmox.token", "it holds the secret: keep what is before the =, and put the rest in a file named in secret_file")
	case !tokenID.MatchString(p.TokenID): // it is not said: it may be a secret in the wrong place
		r.bad("proxmox.token", "it is no token id: write user@realm!name, such as mayfly@pve!mayfly")
	}
	r.eitherOf("proxmox.secret_file", p.SecretFile, "proxmox.secret_env", p.SecretEnv)
	if p.Fingerprint != "" {
		if b, err := hex.DecodeString(strings.ReplaceAll(p.Fingerprint, ":", "")); err != nil || len(b) != 32 {
			r.bad("proxmox.fingerprint", "it is no SHA-256, 64 hex digits with or without colons: take it from `pvenode cert info`")
		}
		if p.CAFile != "" {
			r.bad("proxmox.fingerprint", "ca_file is there too: leave one out")
		}
	}
	if !proxmoxPool.MatchString(p.Pool) {
		r.bad("proxmox.pool", "%q is no name of a Proxmox pool: write one of letters, digits, . _ and -", brief(p.Pool))
	}
	if v := p.VMIDs; v.From < 100 || v.To > 999999999 {
		r.bad("proxmox.vmids", "%s is not within 100-999999999, the ids that Proxmox has", v)
	} else if v.From > v.To {
		r.bad("proxmox.vmids", "%s ends before it begins: write the lower id first", v)
	}
	if p.Reserve < 0 {
		r.bad("proxmox.reserve", "an amount is not negative")
	}
	if !(p.StorageWatermark > 0 && p.StorageWatermark <= 1) {
		r.bad("proxmox.storage_watermark", "%v is not above 0 and up to 1: write 0.9 for 90 %%", p.StorageWatermark)
	}
	r.within("proxmox.gates.clone", p.Gates.Clone, 1, 1000)
	r.within("proxmox.gates.destroy", p.Gates.Destroy, 1, 1000)
	r.within("proxmox.gates.agent", p.Gates.Agent, 1, 1000)
	r.within("proxmox.gates.rate", p.Gates.Rate, 1, 10000)
	if p.FirstPing < 0 {
		r.bad("proxmox.first_ping", "a duration is not negative")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Nodes)) {
		path := "proxmox.nodes." + name
		r.node(path, name)
		r.within(path+".max_runners", p.Nodes[name].MaxRunners, 0, 10000)
	}
}

func (c *Config) checkGitHub(r *report) {
	g := c.GitHub
	if g.URL == "" {
		r.bad("github.url", "it is missing: write where the runners belong, such as https://github.com/my-org")
	} else if u, ok := r.url("github.url", g.URL); ok {
		parts := strings.Split(strings.Trim(u.Path, "/"), "/")
		if parts[0] == "" || len(parts) > 2 || slices.Contains(parts, "") {
			r.bad("github.url", "%s names no organization or repository: write https://github.com/ORG or https://github.com/OWNER/REPO", u)
		}
	}
	if g.API != "" {
		r.url("github.api", g.API)
	}
	r.eitherOf("github.token_file", g.TokenFile, "github.token_env", g.TokenEnv)
	if g.RunnerGroup < 1 {
		r.bad("github.runner_group", "%d is no id of a runner group: write 1 for the default one, or leave it out", g.RunnerGroup)
	}
}

func (c *Config) checkSSH(r *report) {
	s := c.SSH
	if s.User == "" || strings.ContainsAny(s.User, " \t\r\n:") {
		r.bad("ssh.user", "%q is no user's name: write the account in the guest, or leave it out", brief(s.User))
	}
	if s.KeyFile == "" {
		r.bad("ssh.key_file", "it is missing: name the private key that the guests accept")
	}
	r.within("ssh.port", s.Port, 1, 65535)
	if s.Via != "" {
		if u, ok := r.url("ssh.via", s.Via); ok && strings.Trim(u.Path, "/") != "" {
			r.bad("ssh.via", "%s has a path: write http://host:port", u)
		}
	}
	r.guestPath("ssh.command", s.Command)
	r.guestPath("ssh.host_key_path", s.HostKeyPath)
}

// The checks that more than one key needs.

func (r *report) within(path string, n, low, high int) {
	if n < low || n > high {
		r.bad(path, "%d is not from %d to %d", n, low, high)
	}
}

func (r *report) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		r.bad(path, "%q is none of %s", brief(value), strings.Join(allowed, ", "))
	}
}

func (r *report) eitherOf(file, fileValue, env, envValue string) {
	switch {
	case fileValue == "" && envValue == "":
		r.bad(file, "it is missing: name the file that holds the secret, or an environment variable with %s", env)
	case fileValue != "" && envValue != "":
		r.bad(env, "%s is there too: leave one out", file)
	case envValue != "" && !isVariable.MatchString(envValue): // it is not said: it may be the secret itself
		r.bad(env, "it is no name of an environment variable: write its name, not its value")
	}
}

func (r *report) guestPath(path, value string) {
	if value == "" || strings.ContainsAny(value, "\r\n\"") {
		r.bad(path, "it is no path in the guest: write one, or leave it out")
	}
}

func (r *report) node(path, name string) {
	if !nodeName.MatchString(name) {
		r.bad(path, "%q is no name of a Proxmox node: write it as `pvecm nodes` shows it", brief(name))
	}
}

// url parses an http or https URL with a host and nothing behind its path. A user or password in it is a secret
// in the wrong place, and is never said.
func (r *report) url(path, text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		r.bad(path, "it is no URL of http or https with a host: write one such as https://host")
	case u.User != nil:
		r.bad(path, "it holds a user or password: leave out what is before the @")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		r.bad(path, "it has a ? or #: leave out what is from there on")
	case u.Port() != "" && !isPort(u.Port()):
		r.bad(path, "%s is no port: write one from 1 to 65535", brief(u.Port()))
	default:
		return u, true
	}
	return nil, false
}

func (r *report) hostPort(path, address string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isPort(port) || strings.ContainsAny(host, "/ ") {
		r.bad(path, "%q is no address to listen on: write host:port, such as 127.0.0.1:8080", brief(address))
		return "", false
	}
	return host, true
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
