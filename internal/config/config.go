// Package config reads the YAML file that says what Mayfly keeps, where and with which rights.
//
// The comments of the fields of [Config] are the manual. A key that is not one of them is an error; so
// is every value that cannot be right. Each error names file, line, path and mend.
package config

import (
	"crypto/x509"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
)

// Config is the whole file, with defaults filled in and secrets read.
type Config struct {
	// Instance is the name of this Mayfly: 1–12 of a-z0-9. Every VM carries it, and it alone tells our VMs
	// from those of another Mayfly. Never change it while VMs exist. Required.
	Instance string `yaml:"instance"`
	// Listen is where page, API and metrics are served. On an address that is not loopback, web.token_file is
	// required. Default 127.0.0.1:8080.
	Listen     string     `yaml:"listen"`
	Web        Web        `yaml:"web,omitempty"`
	Webhook    Webhook    `yaml:"webhook"`
	Store      Store      `yaml:"store"`
	Proxmox    Proxmox    `yaml:"proxmox"`
	GitHub     GitHub     `yaml:"github"`
	SSH        SSH        `yaml:"ssh"`
	Pools      []Pool     `yaml:"pools"`
	Log        Log        `yaml:"log"`
	Simulation Simulation `yaml:"simulation"`
}

// Web guards the page and the API.
type Web struct {
	// TokenFile holds the token (16 characters or more) that whoever changes something must show, and on an
	// address that is not loopback whoever looks, too.
	TokenFile string `yaml:"token_file,omitempty"`

	// Token is what TokenFile holds; "" without one.
	Token fleet.Secret `yaml:"-"`
}

// Webhook is where GitHub tells of jobs.
type Webhook struct {
	// Listen is where POST /webhook is served, and nothing else. Put TLS in front of it. Default 127.0.0.1:8081.
	Listen string `yaml:"listen"`
	// SecretFile holds the webhook's secret, 16 characters or more. While it is being changed: both, one a line.
	SecretFile string `yaml:"secret_file"`

	// Secrets are the lines of SecretFile: at least one.
	Secrets []fleet.Secret `yaml:"-"`
}

// Store is where Mayfly remembers.
type Store struct {
	// Path is the SQLite file, in a folder of Mayfly's own. To lose it loses no VM. Default /var/lib/mayfly/mayfly.db.
	Path string `yaml:"path"`
}

// Proxmox is the cluster that the VMs live on.
type Proxmox struct {
	// Endpoints are the API's addresses, https://node:8006; the next one is used when one is away. Required.
	Endpoints []string `yaml:"endpoints"`
	// TokenID names the API token: user@realm!name. Required.
	TokenID string `yaml:"token"`
	// SecretFile holds the API token's secret. Either it or SecretEnv is required.
	SecretFile string `yaml:"secret_file,omitempty"`
	// SecretEnv names the environment variable that holds it.
	SecretEnv string `yaml:"secret_env,omitempty"`
	// CAFile holds the certificates (PEM) that the API's is checked with; on a node that is
	// /etc/pve/pve-root-ca.pem. Without it and Fingerprint: the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// Fingerprint is the SHA-256 of the API's certificate, 64 hex digits with or without colons. Instead of CAFile,
	// and for one endpoint only.
	Fingerprint string `yaml:"fingerprint,omitempty"`
	// Pool is the Proxmox resource pool that the VMs are put in. Default mayfly.
	Pool string `yaml:"pool"`
	// VMIDs are the ids that VMs may get: first-last, ours alone, templates outside. Default 100000-109999.
	VMIDs VMIDs `yaml:"vmids"`
	// Reserve is the memory that is left alone on each node. Default 4GiB.
	Reserve fleet.Bytes `yaml:"reserve"`
	// StorageWatermark is the part of a storage, above 0 and up to 1, beyond which no VM is cloned to it. Default 0.9.
	StorageWatermark float64 `yaml:"storage_watermark"`
	// Gates bound what is asked of Proxmox at once.
	Gates Gates `yaml:"gates"`
	// FirstPing is how long after a VM's start its guest agent is first asked, until experience says better: a
	// ping of a guest that still boots holds one of the node's few workers for 3 s. Default 20s.
	FirstPing time.Duration `yaml:"first_ping"`
	// Nodes says what the API token may not see of a node, or what shall be otherwise, by its name.
	Nodes map[string]Node `yaml:"nodes,omitempty"`

	// Secret is what SecretFile or SecretEnv hold.
	Secret fleet.Secret `yaml:"-"`
	// CA are the certificates of CAFile; nil without one.
	CA *x509.CertPool `yaml:"-"`
}

// VMIDs are the ids From to To, both included.
type VMIDs struct{ From, To int }

// Gates bound what is asked of Proxmox at once.
type Gates struct {
	// Clone bounds clones at once on one storage (of one node, where it is not shared). Default 6.
	Clone int `yaml:"clone"`
	// Destroy bounds destroys at once in the cluster. Default 8.
	Destroy int `yaml:"destroy"`
	// Agent bounds guest agent calls at once on one node, which has three workers in all. Default 2.
	Agent int `yaml:"agent"`
	// Rate bounds requests per second. Default 50.
	Rate int `yaml:"rate"`
}

// Node is what the config says of one Proxmox node.
type Node struct {
	// Cordoned nodes get no new VMs.
	Cordoned bool `yaml:"cordoned,omitempty"`
	// Memory is the node's, where the API token may not see it (Sys.Audit).
	Memory fleet.Bytes `yaml:"memory,omitempty"`
	// MaxRunners bounds our VMs there. Default: none, or 2 where the node's memory is not known.
	MaxRunners int `yaml:"max_runners,omitempty"`
}

// GitHub is where the jobs come from.
type GitHub struct {
	// URL is where the runners belong: https://github.com/ORG or https://github.com/OWNER/REPO. Required.
	URL string `yaml:"url"`
	// API is the REST API's address, where it does not follow from URL.
	API string `yaml:"api,omitempty"`
	// TokenFile holds the access token. Either it or TokenEnv is required.
	TokenFile string `yaml:"token_file,omitempty"`
	// TokenEnv names the environment variable that holds it.
	TokenEnv string `yaml:"token_env,omitempty"`
	// RunnerGroup is the id of the runner group that runners join. Default 1, GitHub's own.
	RunnerGroup int64 `yaml:"runner_group"`

	// Token is what TokenFile or TokenEnv hold.
	Token fleet.Secret `yaml:"-"`
}

// SSH is how the guests are reached.
type SSH struct {
	// User is the account in the guest. Default orchestrator.
	User string `yaml:"user"`
	// KeyFile holds the private key, without a passphrase. Required.
	KeyFile string `yaml:"key_file"`
	// Port of the guest's SSH server. Default 22.
	Port int `yaml:"port"`
	// Via is a proxy that connects to the guests, http://host:port, where we do not reach them ourselves.
	Via string `yaml:"via,omitempty"`
	// Command is the helper in the guest. Default C:\runner-agent\mayfly-guest.exe.
	Command string `yaml:"command"`
	// HostKeyPath is the file of the guest's SSH host key, read through the guest agent.
	// Default C:\ProgramData\ssh\ssh_host_ed25519_key.pub.
	HostKeyPath string `yaml:"host_key_path"`

	// Signer is the key of KeyFile.
	Signer ssh.Signer `yaml:"-"`
}

// Pool is a kind of runner. A job goes to the pool with the fewest labels that has all the job's labels.
type Pool struct {
	// Name is 1–40 of a-z0-9-, with no - at its ends. It is part of each VM's name. Required.
	Name string `yaml:"name"`
	// Labels are all the labels of its runners, self-hosted among them. Required.
	Labels []string `yaml:"labels"`
	// Max bounds runners at once; a VM that is being destroyed does not count. Required.
	Max int `yaml:"max"`
	// Ready is how many booted VMs wait in advance. Default 0.
	Ready int `yaml:"ready"`
	// Template is the VMID of the template that VMs are cloned from; Nodes says where it is. Either it or
	// Templates is required.
	Template int `yaml:"template,omitempty"`
	// Nodes is the one node that Template is on, and so its clones.
	Nodes []string `yaml:"nodes,omitempty,flow"`
	// Templates are the VMIDs of the templates by node, where each node has its own.
	Templates map[string]int `yaml:"templates,omitempty"`
	// Cores of each VM. Default: the template's.
	Cores int `yaml:"cores,omitempty"`
	// Memory of each VM. Default: the template's.
	Memory fleet.Bytes `yaml:"memory,omitempty"`
	// CloneTimeout is how long cloning may take. Default 15m.
	CloneTimeout time.Duration `yaml:"clone_timeout"`
	// BootTimeout is how long a started VM may take until its guest is ready. Default 5m.
	BootTimeout time.Duration `yaml:"boot_timeout"`
	// JobTimeout is how long a job may take before its VM is destroyed. Default 24h.
	JobTimeout time.Duration `yaml:"job_timeout"`
}

// Log is how Mayfly tells what it does, on standard error.
type Log struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is text or json. Default text.
	Format string `yaml:"format"`
}

// Simulation is for use against `mayfly sim` only.
type Simulation struct {
	// Speed divides ticks, polls and grace times, as `mayfly sim --speed` divides its delays. Default 1.
	Speed float64 `yaml:"speed"`
}

// FleetPools are the pools as the core knows them, in the order of the file.
func (c *Config) FleetPools() []fleet.Pool {
	pools := make([]fleet.Pool, 0, len(c.Pools))
	for _, p := range c.Pools {
		templates := make(map[string]int, len(p.Templates)+len(p.Nodes))
		for node, id := range p.Templates {
			templates[node] = id
		}
		for _, node := range p.Nodes {
			templates[node] = p.Template
		}
		pools = append(pools, fleet.Pool{
			Name: p.Name, Labels: p.Labels, Ready: p.Ready, Max: p.Max, Templates: templates, Cores: p.Cores, Memory: p.Memory,
			CloneTimeout: p.CloneTimeout, BootTimeout: p.BootTimeout, JobTimeout: p.JobTimeout,
		})
	}
	return pools
}
