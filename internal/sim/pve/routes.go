package pve

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A request is one API call. Its fields are fixed before its handler runs.
type request struct {
	c            *Cluster
	method, path string
	token        token
	node         string
	vmid         int
	upid         string
	storage      string
	poolid       string
	params       map[string][]string
	unexpected   bool
	sabotage     *Action
}

func (r *request) has(name string) bool { return len(r.params[name]) > 0 }

func (r *request) str(name, other string) string {
	if !r.has(name) {
		return other
	}
	return r.params[name][0]
}

func (r *request) num(name string, other int) int {
	n, err := strconv.Atoi(r.str(name, ""))
	if err != nil {
		return other
	}
	return n
}

// A route is one API method.
type route struct {
	name      string // fixed, for counting
	method    string
	path      []string
	protected bool                     // runs in pvedaemon
	writes    bool                     // changes a VM
	may       func(*request) *apiError // static permission check; c.mu is held
	params    map[string]param
	run       func(*Cluster, *request) (any, *apiError)
}

func splitPath(p string) []string { return strings.Split(strings.Trim(p, "/"), "/") }

// route finds the method and takes the variables out of the path.
func (r *request) route() *route {
	parts := splitPath(r.path)
	for i := range routes {
		rt := &routes[i]
		if rt.method != r.method || len(rt.path) != len(parts) {
			continue
		}
		if !slices.EqualFunc(rt.path, parts, func(want, got string) bool {
			if want == "{vmid}" {
				_, err := strconv.Atoi(got)
				return err == nil
			}
			return want == got || strings.HasPrefix(want, "{") && got != ""
		}) {
			continue
		}
		for j, want := range rt.path {
			switch want {
			case "{node}":
				r.node = parts[j]
			case "{vmid}":
				r.vmid, _ = strconv.Atoi(parts[j])
			case "{upid}":
				r.upid = parts[j]
			case "{storage}":
				r.storage = parts[j]
			case "{pool}":
				r.poolid = parts[j]
			}
		}
		return rt
	}
	return nil
}

// A param is one entry of a method's schema; check gives PVE's text for a bad value, "" for a good one.
type param struct {
	required bool
	check    func(string) string
}

// check validates the parameters against the schema (pve-common 9.2: PVE::JSONSchema).
func (rt *route) check(r *request) *apiError {
	if rt.params == nil {
		return nil // the handler checks
	}
	bad := map[string]string{}
	for name, p := range rt.params {
		switch {
		case !r.has(name) && p.required:
			bad[name] = "property is missing and it is not optional"
		case r.has(name) && p.check != nil:
			if text := p.check(r.str(name, "")); text != "" {
				bad[name] = text
			}
		}
	}
	for name := range r.params {
		if _, known := rt.params[name]; !known && name != "node" && name != "vmid" {
			bad[name] = unknownProperty
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &apiError{code: 400, message: "Parameter verification failed.", errors: bad}
}

const unknownProperty = "property is not defined in schema and the schema does not allow additional properties"

var (
	integerText = regexp.MustCompile(`^[+-]?\d+$`)
	vmidText    = regexp.MustCompile(`^[1-9][0-9]{2,8}$`)
	dnsName     = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?\.)*([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)$`)
	tagText     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_\-+.]*$`)
)

func isInteger(s string) string {
	if !integerText.MatchString(s) {
		return fmt.Sprintf("type check ('integer') failed - got '%s'", s)
	}
	return ""
}

func atLeast(least int) func(string) string {
	return func(s string) string {
		if text := isInteger(s); text != "" {
			return text
		}
		if n, _ := strconv.Atoi(s); n < least {
			return fmt.Sprintf("value must have a minimum value of %d", least)
		}
		return ""
	}
}

func isBool(s string) string {
	if s != "0" && s != "1" {
		return fmt.Sprintf("type check ('boolean') failed - got '%s'", s)
	}
	return ""
}

func isVMID(s string) string {
	if text := isInteger(s); text != "" {
		return text
	}
	if !vmidText.MatchString(s) {
		return "invalid format - value does not look like a valid VM ID\n"
	}
	return ""
}

func isDNSName(s string) string {
	if !dnsName.MatchString(s) {
		return "invalid format - value does not look like a valid DNS name\n"
	}
	return ""
}

func isTags(s string) string {
	for _, t := range tagList(s) {
		if !tagText.MatchString(t) {
			return "invalid format - invalid characters in tag\n"
		}
	}
	return ""
}

// tagList splits a tag list; in a request comma, semicolon and blank all separate.
func tagList(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ';' || c == ' ' })
}

func oneOf(values ...string) func(string) string {
	return func(s string) string {
		if !slices.Contains(values, s) {
			return fmt.Sprintf("value '%s' does not have a value in the enumeration '%s'", s, strings.Join(values, ", "))
		}
		return ""
	}
}

type schema = map[string]param

var (
	optionalText = param{}
	optionalInt  = param{check: isInteger}
	optionalSize = param{check: atLeast(0)}
	optionalBool = param{check: isBool}
)

var routes = []route{
	{name: "version", method: "GET", path: []string{"version"}, params: schema{}, run: (*Cluster).version},
	{name: "nodes", method: "GET", path: []string{"nodes"}, params: schema{}, run: (*Cluster).nodeList},
	{name: "node_status", method: "GET", path: splitPath("nodes/{node}/status"), may: needsNode("Sys.Audit"), params: schema{}, run: (*Cluster).nodeStatus},
	{name: "cluster_status", method: "GET", path: splitPath("cluster/status"), protected: true, params: schema{}, run: (*Cluster).clusterStatus},
	{name: "resources", method: "GET", path: splitPath("cluster/resources"), params: schema{"type": {check: oneOf("vm", "storage", "node", "sdn")}}, run: (*Cluster).resources},
	{name: "nextid", method: "GET", path: splitPath("cluster/nextid"), params: schema{"vmid": {check: isVMID}}, run: (*Cluster).nextID},
	{name: "permissions", method: "GET", path: splitPath("access/permissions"), params: schema{"path": optionalText, "userid": optionalText}, run: (*Cluster).permissions},
	{name: "pools", method: "GET", path: []string{"pools"}, params: schema{"poolid": optionalText, "type": optionalText}, run: (*Cluster).poolList},
	{name: "pool", method: "GET", path: splitPath("pools/{pool}"), params: schema{"type": optionalText}, run: (*Cluster).pool},
	{name: "storage", method: "GET", path: splitPath("nodes/{node}/storage"), protected: true, params: schema{"storage": optionalText, "content": optionalText, "enabled": optionalBool, "target": optionalText, "format": optionalBool}, run: (*Cluster).storageList},
	{name: "storage_status", method: "GET", path: splitPath("nodes/{node}/storage/{storage}/status"), protected: true, may: needsStorage, params: schema{}, run: (*Cluster).storageStatus},
	{name: "storage_content", method: "GET", path: splitPath("nodes/{node}/storage/{storage}/content"), protected: true, may: needsStorage, params: schema{"content": optionalText, "vmid": {check: isVMID}}, run: (*Cluster).storageContent},
	{name: "tasks", method: "GET", path: splitPath("nodes/{node}/tasks"), params: schema{
		"start": optionalSize, "limit": optionalSize, "vmid": {check: isVMID}, "typefilter": optionalText, "statusfilter": optionalText,
		"errors": optionalBool, "since": optionalInt, "until": optionalInt, "userfilter": optionalText, "source": {check: oneOf("archive", "active", "all")},
	}, run: (*Cluster).taskList},
	{name: "task_status", method: "GET", path: splitPath("nodes/{node}/tasks/{upid}/status"), protected: true, params: schema{}, run: (*Cluster).taskStatus},
	{name: "task_log", method: "GET", path: splitPath("nodes/{node}/tasks/{upid}/log"), protected: true, params: schema{"start": optionalSize, "limit": optionalSize, "download": optionalBool}, run: (*Cluster).taskLog},
	{name: "task_stop", method: "DELETE", path: splitPath("nodes/{node}/tasks/{upid}"), protected: true, params: schema{}, run: (*Cluster).taskStop},
	{name: "list", method: "GET", path: splitPath("nodes/{node}/qemu"), protected: true, params: schema{"full": optionalBool}, run: (*Cluster).vmList},
	{name: "clone", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/clone"), protected: true, may: mayClone, params: schema{
		"newid": {required: true, check: isVMID}, "name": {check: isDNSName}, "description": optionalText, "pool": optionalText,
		"snapname": optionalText, "storage": optionalText, "format": {check: oneOf("raw", "qcow2", "vmdk")}, "full": optionalBool,
		"target": optionalText, "bwlimit": optionalSize,
	}, run: (*Cluster).clone},
	{name: "config", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/config"), may: needs("VM.Audit"), params: schema{"current": optionalBool, "snapshot": optionalText}, run: (*Cluster).getConfig},
	{name: "config_put", method: "PUT", path: splitPath("nodes/{node}/qemu/{vmid}/config"), protected: true, writes: true, may: needs(configPrivileges...), run: (*Cluster).putConfig},
	{name: "feature", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/feature"), protected: true, may: needs("VM.Audit"), params: schema{"feature": {required: true, check: oneOf("snapshot", "clone", "copy")}, "snapname": optionalText}, run: (*Cluster).feature},
	{name: "status", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/status/current"), protected: true, may: needs("VM.Audit"), params: schema{}, run: (*Cluster).vmStatus},
	{name: "start", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/status/start"), protected: true, writes: true, may: needs("VM.PowerMgmt"), params: schema{
		"skiplock": optionalBool, "stateuri": optionalText, "migratedfrom": optionalText, "force-cpu": optionalText, "targetstorage": optionalText, "timeout": optionalSize, "machine": optionalText,
	}, run: (*Cluster).start},
	{name: "stop", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/status/stop"), protected: true, writes: true, may: needs("VM.PowerMgmt"), params: schema{
		"skiplock": optionalBool, "migratedfrom": optionalText, "timeout": optionalSize, "keepActive": optionalBool, "overrule-shutdown": optionalBool,
	}, run: (*Cluster).stop},
	{name: "shutdown", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/status/shutdown"), protected: true, writes: true, may: needs("VM.PowerMgmt"), params: schema{
		"skiplock": optionalBool, "timeout": optionalSize, "forceStop": optionalBool, "keepActive": optionalBool,
	}, run: (*Cluster).shutdown},
	{name: "delete", method: "DELETE", path: splitPath("nodes/{node}/qemu/{vmid}"), protected: true, writes: true, may: needs("VM.Allocate"), params: schema{
		"skiplock": optionalBool, "purge": optionalBool, "destroy-unreferenced-disks": optionalBool,
	}, run: (*Cluster).destroy},
	{name: "agent_ping", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/agent/ping"), protected: true, may: needsAgent("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), params: schema{}, run: (*Cluster).agentPing},
	{name: "agent_interfaces", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/agent/network-get-interfaces"), protected: true, may: needsAgent("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), params: schema{}, run: (*Cluster).agentInterfaces},
	{name: "agent_file_read", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/agent/file-read"), protected: true, may: needsAgent("VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted"), params: schema{
		"file": {required: true}, "count": optionalSize, "offset": optionalSize, "decode": optionalBool,
	}, run: (*Cluster).agentFileRead},
	{name: "agent_exec", method: "POST", path: splitPath("nodes/{node}/qemu/{vmid}/agent/exec"), protected: true, writes: true, may: needsAgent("VM.GuestAgent.Unrestricted"), params: schema{"command": {required: true}, "input-data": optionalText}, run: (*Cluster).agentExec},
	{name: "agent_exec_status", method: "GET", path: splitPath("nodes/{node}/qemu/{vmid}/agent/exec-status"), protected: true, may: needsAgent("VM.GuestAgent.Unrestricted"), params: schema{"pid": {required: true, check: isInteger}}, run: (*Cluster).agentExecStatus},
}
