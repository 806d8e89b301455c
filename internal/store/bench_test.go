package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/store"
)

// BenchmarkRecord stores webhook deliveries from many callers at once, each durable when its call returns.
func BenchmarkRecord(b *testing.B) {
	s := mustOpen(b, filepath.Join(b.TempDir(), "mayfly.db"), store.Options{})
	defer mustClose(b, s)
	var id atomic.Int64
	b.SetParallelism(128) // a webhook is a goroutine of its own
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := id.Add(1)
			j := fleet.Job{
				ID: n, Repo: "acme/app", Name: "build", Labels: []string{"self-hosted", "windows", "x64", "win11"},
				Status: fleet.StatusQueued, Created: time.Now(), Received: time.Now(),
			}
			guid := fmt.Sprintf("%08x-0000-11ef-8000-%012x", n*2654435761%(1<<32), n)
			changed, err := s.Record(context.Background(), guid, j, fleet.Event{Kind: fleet.JobQueued, Job: n})
			if err != nil || !changed {
				b.Fatal(changed, err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkUpdate is one durable write alone: what a launch waits for at each of its steps.
func BenchmarkUpdate(b *testing.B) {
	s := mustOpen(b, filepath.Join(b.TempDir(), "mayfly.db"), store.Options{})
	defer mustClose(b, s)
	r := fleet.Runner{Name: "k3f9-win-00000001", Pool: "win", Node: "pve1", VMID: 100001, Phase: fleet.Preparing, Born: time.Now()}
	if err := s.Create(b.Context(), []fleet.Runner{r}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Update(b.Context(), r, fleet.Event{Kind: fleet.Cloned, Runner: r.Name}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad is the reading before each decision: one row has changed. The write is not counted.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			s := mustOpen(b, filepath.Join(b.TempDir(), "mayfly.db"), store.Options{Fast: true})
			defer mustClose(b, s)
			var runners []fleet.Runner
			var jobs []fleet.Job
			now := time.Now()
			for i := range n {
				name := fmt.Sprintf("k3f9-win-%08x", i)
				runners = append(runners, fleet.Runner{
					Name: name, Pool: "win", Node: fmt.Sprintf("pve%d", i%100), VMID: 100000 + i, Template: 9000, Phase: fleet.Busy,
					Since: now, Born: now, AskedAt: now, UPID: "UPID:pve1:000F2D3A:0A1B2C3D:68000000:qmclone:9000:mayfly@pve!mayfly:", ClonedAt: now,
					MAC: "BC:24:11:00:00:01", StartedAt: now, Address: "10.0.0.1", HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
					Registration: name, RunnerID: int64(i + 1), Job: int64(i + 1),
				})
				jobs = append(jobs, fleet.Job{
					ID: int64(i + 1), Repo: "acme/app", Name: "build", Labels: []string{"self-hosted", "windows", "x64", "win11"},
					Status: fleet.StatusInProgress, RunnerID: int64(i + 1), Runner: name, Created: now, Received: now,
				})
			}
			if err := s.Create(b.Context(), runners); err != nil {
				b.Fatal(err)
			}
			if err := s.Observe(b.Context(), jobs); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				if err := s.Update(b.Context(), runners[i%n]); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				books, err := s.Load(b.Context())
				if err != nil || len(books.Runners) != n || len(books.Jobs) != n {
					b.Fatal(len(books.Runners), len(books.Jobs), err)
				}
			}
		})
	}
}
