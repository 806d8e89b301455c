package pve

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A token is an API token and what it may do.
type token struct {
	id, secret string
	rights     Rights
}

// user is the token's owner and its name without the owner.
func (t token) user() (user, name string) {
	user, name, _ = strings.Cut(t.id, "!")
	return user, name
}

func tokensOf(cfg Config) map[string]token {
	m := map[string]token{}
	if cfg.Token != "" {
		m[cfg.Token] = token{cfg.Token, cfg.Secret, PoolOnly}
	}
	for _, t := range cfg.Tokens {
		m[t.ID] = token{t.ID, t.Secret, t.Rights}
	}
	return m
}

// authenticate reads the Authorization header (http-server 6.0: Formatter.pm extract_auth_value).
// Every fault of a token is the same 401 since 2026-01.
func (c *Cluster) authenticate(h http.Header) (token, *apiError) {
	v := h.Get("Authorization")
	rest, ok := strings.CutPrefix(v, "PVEAPIToken")
	if !ok || rest == "" || (rest[0] != '=' && rest[0] != ' ') {
		return token{}, &apiError{code: 401, message: "No ticket", silent: true}
	}
	if u, err := url.PathUnescape(rest[1:]); err == nil {
		rest = u
	} else {
		rest = rest[1:]
	}
	i := strings.LastIndexByte(rest, '=')
	if i > 0 {
		if t, ok := c.tokens[rest[:i]]; ok && t.secret != "" && t.secret == rest[i+1:] {
			return t, nil
		}
	}
	return token{}, &apiError{code: 401, message: "Authentication failed!", silent: true}
}

// narrowRole is the least role that carries clone → PUT → start → interfaces → file-read → stop →
// delete (captured on 9.2); fullRole adds what the agent transport and snapshots need.
var (
	narrowRole = []string{
		"VM.Allocate", "VM.Audit", "VM.PowerMgmt", "VM.Config.Options", "VM.Config.CPU", "VM.Config.Memory",
		"VM.Config.Network", "VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "Pool.Audit",
	}
	fullRole = append(slices.Clone(narrowRole), "VM.Config.Disk", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.GuestAgent.Unrestricted")
)

// role is what the token has on its pool.
func (c *Cluster) role(t token) []string {
	role := fullRole
	if t.rights == Narrow {
		role = narrowRole
	}
	if c.cfg.Version != "8.4" {
		return role
	}
	// 8.x knows no VM.GuestAgent.*: VM.Monitor covers every agent call.
	role = slices.DeleteFunc(slices.Clone(role), func(p string) bool { return strings.HasPrefix(p, "VM.GuestAgent.") })
	return append(role, "VM.Monitor")
}

// grants are the token's ACLs: path → privileges. c.mu must be held.
func (c *Cluster) grants(t token) map[string][]string {
	m := map[string][]string{}
	switch t.rights {
	case PoolOnly, Narrow:
	default:
		return m
	}
	role := c.role(t)
	m["/pool/"+c.cfg.Pool] = role
	for id, v := range c.vms {
		switch {
		case v.template:
			m[vmPath(id)] = []string{"VM.Audit", "VM.Clone"} // PVETemplateUser
		case c.pools[id] == c.cfg.Pool:
			m[vmPath(id)] = role
		}
	}
	for name := range c.storages {
		m["/storage/"+name] = []string{"Datastore.AllocateSpace", "Datastore.Audit"}
	}
	m["/sdn/zones/localnetwork"] = []string{"SDN.Audit", "SDN.Use"}
	if !c.cfg.NoSysAudit {
		for name := range c.nodes {
			m["/nodes/"+name] = []string{"Sys.Audit"}
		}
	}
	return m
}

func vmPath(id int) string { return "/vms/" + strconv.Itoa(id) }

// can says whether the request's token has one of the privileges on path. c.mu must be held.
func (r *request) can(path string, privs ...string) bool {
	c, t := r.c, r.token
	switch t.rights {
	case Root:
		return true
	case Nothing:
		return false
	}
	has := func(granted []string) bool {
		return slices.ContainsFunc(privs, func(p string) bool { return slices.Contains(granted, p) })
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch kind {
	case "vms":
		id, _ := strconv.Atoi(rest)
		if v := c.vms[id]; v != nil && v.template {
			return has([]string{"VM.Audit", "VM.Clone"})
		}
		return c.pools[id] == c.cfg.Pool && has(c.role(t))
	case "pool":
		return rest == c.cfg.Pool && has(c.role(t))
	case "storage":
		_, ok := c.storages[rest]
		return ok && has([]string{"Datastore.AllocateSpace", "Datastore.Audit"})
	case "sdn":
		return strings.HasPrefix(rest, "zones/localnetwork") && has([]string{"SDN.Audit", "SDN.Use"})
	case "nodes":
		return !c.cfg.NoSysAudit && has([]string{"Sys.Audit"})
	}
	return false
}

// denied is the 403 of a check for any of privs on path.
func denied(path string, privs ...string) *apiError {
	return &apiError{code: 403, message: fmt.Sprintf("Permission check failed (%s, %s)", path, strings.Join(privs, "|"))}
}

// needs is a static permission check on the request's VM.
func needs(privs ...string) func(*request) *apiError {
	return func(r *request) *apiError {
		if p := vmPath(r.vmid); !r.can(p, privs...) {
			return denied(p, privs...)
		}
		return nil
	}
}

// needsAgent is the check of an agent call: 8.x has VM.Monitor for all of them.
func needsAgent(privs ...string) func(*request) *apiError {
	return func(r *request) *apiError {
		if r.c.cfg.Version == "8.4" {
			return needs("VM.Monitor")(r)
		}
		return needs(privs...)(r)
	}
}

func needsNode(priv string) func(*request) *apiError {
	return func(r *request) *apiError {
		if p := "/nodes/" + r.node; !r.can(p, priv) {
			return denied(p, priv)
		}
		return nil
	}
}

func needsStorage(r *request) *apiError {
	if p := "/storage/" + r.storage; !r.can(p, "Datastore.Audit", "Datastore.AllocateSpace") {
		return denied(p, "Datastore.Audit", "Datastore.AllocateSpace")
	}
	return nil
}

// mayClone: VM.Clone on the source and VM.Allocate on the new id or on the pool. The second is an "or"
// check, whose 403 says nothing of what was missing.
func mayClone(r *request) *apiError {
	if e := needs("VM.Clone")(r); e != nil {
		return e
	}
	if r.can("/vms/"+r.str("newid", ""), "VM.Allocate") || r.has("pool") && r.can("/pool/"+r.str("pool", ""), "VM.Allocate") {
		return nil
	}
	return &apiError{code: 403, message: "Permission check failed"}
}

// onlyRoot refuses options that are root@pam's: no token is, not even one of root@pam.
func onlyRoot(r *request, params ...string) *apiError {
	for _, p := range params {
		if r.has(p) {
			return badParam(p, "Only root may use this option.")
		}
	}
	return nil
}

func (c *Cluster) permissions(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := map[string]any{}
	for path, privs := range c.grants(r.token) {
		if r.has("path") && r.str("path", "") != path {
			continue
		}
		// The value is the propagate flag: 0 where the right comes from a pool, and still granted.
		flag := 1
		if id, err := strconv.Atoi(strings.TrimPrefix(path, "/vms/")); err == nil && c.pools[id] != "" {
			flag = 0
		}
		set := map[string]int{}
		for _, p := range privs {
			set[p] = flag
		}
		m[path] = set
	}
	if r.token.rights == Root {
		set := map[string]int{}
		for _, p := range append(slices.Clone(fullRole), "VM.Clone", "Sys.Audit", "Sys.Modify", "Datastore.Audit", "Datastore.Allocate", "Datastore.AllocateSpace", "SDN.Use") {
			set[p] = 1
		}
		m["/"] = set
	}
	return m, nil
}
