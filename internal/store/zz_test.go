package store
import ("testing";"fmt";"path/filepath";"mayfly/internal/fleet";"time")
func BenchmarkZZ(b *testing.B) {
	for _, n := range []int{100,1000,10000} { for _, k := range []int{1,16,64,n/3,2*n/3} { for _, all := range []bool{false,true} {
		if all && k != 1 {continue}
		b.Run(fmt.Sprint(n,"/",k,"/",all), func(b *testing.B) {
			s,err := Open(b.Context(), filepath.Join(b.TempDir(),"x.db"), Options{Fast:true})
			if err != nil {b.Fatal(err)}
			defer s.Close()
			var rs []fleet.Runner; var js []fleet.Job
			now := time.Now()
			for i := range n {
				rs = append(rs, fleet.Runner{Name: fmt.Sprintf("k3f9-win-%08x",i), VMID:i+1, Phase: fleet.Busy, UPID: "UPID:pve1:000F2D3A:0A1B2C3D:68000000:qmclone:9000:mayfly@pve!mayfly:", Since: now, Born: now})
				js = append(js, fleet.Job{ID:int64(i+1), Repo:"acme/app", Name:"build", Labels: []string{"self-hosted", "windows", "x64", "win11"}, Status: fleet.StatusInProgress, Created: now})
			}
			s.Create(b.Context(), rs); s.Observe(b.Context(), js)
			s.Load(b.Context())
			last, _ := s.changes.since()
			t := touched{runners: map[string]uint64{}, jobs: map[int64]uint64{}}
			for i := range k { if i%2==0 {t.runners[rs[i].Name]=1} else {t.jobs[js[i].ID]=1} }
			b.ReportAllocs()
			for b.Loop() {
				tx, _ := s.reads.BeginTx(b.Context(), nil)
				var bk fleet.Books
				if all { bk, err = loadAll(b.Context(), tx) } else { bk, err = s.one.patch(b.Context(), tx, last.books, t) }
				tx.Rollback()
				if err != nil || len(bk.Runners) != n || len(bk.Jobs) != n { b.Fatal(err, len(bk.Runners), len(bk.Jobs)) }
			}
		})
	}}}
}
