package config

import (
	"fmt"
	"time"

	"mayfly/internal/fleet"
)

// withDefaults fills in what the file does not say. What it says stays, a zero too: that is for validation to judge.
func withDefaults(c *Config, given func(path string) bool) {
	d := defaults{given}
	fill(d, "listen", &c.Listen, "127.0.0.1:8080")
	fill(d, "webhook.listen", &c.Webhook.Listen, "127.0.0.1:8081")
	fill(d, "store.path", &c.Store.Path, "/var/lib/mayfly/mayfly.db")

	fill(d, "proxmox.pool", &c.Proxmox.Pool, "mayfly")
	fill(d, "proxmox.vmids", &c.Proxmox.VMIDs, VMIDs{100000, 109999})
	fill(d, "proxmox.reserve", &c.Proxmox.Reserve, 4*fleet.GiB)
	fill(d, "proxmox.storage_watermark", &c.Proxmox.StorageWatermark, 0.9)
	fill(d, "proxmox.gates.clone", &c.Proxmox.Gates.Clone, 6)
	fill(d, "proxmox.gates.destroy", &c.Proxmox.Gates.Destroy, 8)
	fill(d, "proxmox.gates.agent", &c.Proxmox.Gates.Agent, 2)
	fill(d, "proxmox.gates.rate", &c.Proxmox.Gates.Rate, 50)
	fill(d, "proxmox.first_ping", &c.Proxmox.FirstPing, 20*time.Second)

	fill(d, "github.runner_group", &c.GitHub.RunnerGroup, 1)

	fill(d, "ssh.user", &c.SSH.User, "orchestrator")
	fill(d, "ssh.port", &c.SSH.Port, 22)
	fill(d, "ssh.command", &c.SSH.Command, `C:\runner-agent\mayfly-guest.exe`)
	fill(d, "ssh.host_key_path", &c.SSH.HostKeyPath, `C:\ProgramData\ssh\ssh_host_ed25519_key.pub`)

	for i := range c.Pools {
		path, p := fmt.Sprintf("pools[%d].", i), &c.Pools[i]
		fill(d, path+"clone_timeout", &p.CloneTimeout, 15*time.Minute)
		fill(d, path+"boot_timeout", &p.BootTimeout, 5*time.Minute)
		fill(d, path+"job_timeout", &p.JobTimeout, 24*time.Hour)
	}

	fill(d, "log.level", &c.Log.Level, "info")
	fill(d, "log.format", &c.Log.Format, "text")
	fill(d, "simulation.speed", &c.Simulation.Speed, 1)
}

type defaults struct{ given func(path string) bool }

func fill[T any](d defaults, path string, field *T, value T) {
	if !d.given(path) {
		*field = value
	}
}
