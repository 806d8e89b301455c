package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"mayfly/internal/fleet"
)

const (
	// maxLabels and maxLabel bound the labels of one pool (GitHub takes at most 100 with a JIT configuration) and
	// the characters of one.
	maxLabels = 100
	maxLabel  = 256

	maxRunners = 100_000
)

func (c *Config) checkPools(r *report) {
	if len(c.Pools) == 0 {
		r.bad("pools", "it is missing: name at least one pool of runners")
	}
	names := map[string]string{}
	sum := 0
	for i, p := range c.Pools {
		path := fmt.Sprintf("pools[%d]", i)
		switch first := names[p.Name]; {
		case p.Name == "":
			r.bad(path+".name", "it is missing: write 1–40 of a-z0-9-")
		case !poolName.MatchString(p.Name):
			r.bad(path+".name", "%q is not 1–40 of a-z0-9- with no - at its ends: it becomes part of host names", brief(p.Name))
		case first != "":
			r.bad(path+".name", "%s is the name of %s too: choose another", p.Name, first)
		default:
			names[p.Name] = path
		}
		r.labels(path+".labels", p.Labels)
		if p.Max == 0 {
			r.bad(path+".max", "it is missing or 0: write how many runners there may be at once; to stop a pool, take it out")
		} else {
			r.within(path+".max", p.Max, 1, maxRunners)
		}
		if p.Ready < 0 || p.Ready > p.Max {
			r.bad(path+".ready", "%d is not from 0 to max, %d", p.Ready, p.Max)
		}
		sum += max(p.Max, 0)
		c.checkTemplates(r, path, p)
		r.within(path+".cores", p.Cores, 0, 1024)
		if p.Memory != 0 && p.Memory < 512*fleet.MiB {
			r.bad(path+".memory", "%s is too little for Windows: write 4GiB or more, or leave it out for the template's", formatBytes(p.Memory))
		}
		r.timeout(path+".clone_timeout", p.CloneTimeout)
		r.timeout(path+".boot_timeout", p.BootTimeout)
		r.timeout(path+".job_timeout", p.JobTimeout)
	}
	if v := c.Proxmox.VMIDs; v.From >= 100 && v.From <= v.To && v.To-v.From+1 < sum {
		r.bad("proxmox.vmids", "%s has %d ids for pools of %d runners in all: make it at least %d wide", v, v.To-v.From+1, sum, idsWanted(sum))
	}
}

// idsWanted is how many ids let an ended VM's id rest for a while before it is used again.
func idsWanted(runners int) int { return 2*runners + 10 }

func (r *report) labels(path string, labels []string) {
	if len(labels) == 0 {
		r.bad(path, "it is missing: list them all, such as [self-hosted, windows, x64]")
	}
	if len(labels) > maxLabels {
		r.bad(path, "%d labels are more than %d: leave some out", len(labels), maxLabels)
		return
	}
	for i, l := range labels {
		sub := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case l == "" || l != strings.TrimSpace(l) || strings.ContainsFunc(l, unicode.IsControl):
			r.bad(sub, "%q is empty, has blanks at its ends or control characters: write a plain word", brief(l))
		case len([]rune(l)) > maxLabel:
			r.bad(sub, "it is longer than %d characters: shorten it", maxLabel)
		case strings.Contains(l, ","):
			r.bad(sub, "%q has a comma, which parts labels: make it two", brief(l))
		case slices.ContainsFunc(labels[:i], func(o string) bool { return strings.EqualFold(o, l) }):
			r.bad(sub, "%s is there twice (case does not count): leave one out", l)
		}
	}
}

func (r *report) timeout(path string, d time.Duration) {
	if d <= 0 {
		r.bad(path, "%s is no time-out: write one such as 15m, or leave it out", d)
	}
}

func (c *Config) checkTemplates(r *report, path string, p Pool) {
	id := func(path string, id int) {
		switch {
		case id < 100 || id > 999999999:
			r.bad(path, "%d is no VMID of Proxmox, which are 100-999999999", id)
		case c.Proxmox.VMIDs.Has(id):
			r.bad(path, "%d is within proxmox.vmids, %s, where VMs are made and destroyed: give the template an id outside", id, c.Proxmox.VMIDs)
		}
	}
	switch {
	case p.Template == 0 && len(p.Templates) == 0:
		r.bad(path+".template", "it is missing: write the template's VMID, and the node that it is on in nodes")
	case p.Template != 0 && len(p.Templates) > 0:
		r.bad(path+".templates", "template is there too: leave one out")
	case p.Template != 0 && len(p.Nodes) == 0:
		r.bad(path+".nodes", "it is missing: say which node template %d is on, such as nodes: [pve1]", p.Template)
	case p.Template != 0 && len(p.Nodes) > 1:
		r.bad(path+".nodes", "template %d is on one node only, as a VMID exists once in a cluster: give each node its own, templates: {%s: %d, %s: OTHER}", p.Template, brief(p.Nodes[0]), p.Template, brief(p.Nodes[1]))
	case len(p.Templates) > 0 && len(p.Nodes) > 0:
		r.bad(path+".nodes", "templates names the nodes already: leave nodes out")
	}
	if p.Template != 0 {
		id(path+".template", p.Template)
	}
	for i, n := range p.Nodes {
		sub := fmt.Sprintf("%s.nodes[%d]", path, i)
		if r.node(sub, n); slices.Index(p.Nodes, n) < i {
			r.bad(sub, "%s is there twice: leave one out", brief(n))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(p.Templates)) {
		r.node(path+".templates."+n, n)
		id(path+".templates."+n, p.Templates[n])
	}
}
