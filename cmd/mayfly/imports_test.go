package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports holds the house rules: who may import whom. A room may import itself and what stands here.
func TestImports(t *testing.T) {
	allowed := map[string][]string{
		"mayfly/internal/fleet":           {},
		"mayfly/internal/controller":      {"mayfly/internal/fleet"},
		"mayfly/internal/proxmox":         {"mayfly/internal/fleet"},
		"mayfly/internal/github":          {"mayfly/internal/fleet"},
		"mayfly/internal/guest":           {"mayfly/internal/fleet", "mayfly/internal/guest/wire"},
		"mayfly/internal/guest/wire":      {},
		"mayfly/internal/guest/helper":    {"mayfly/internal/guest/wire"},
		"mayfly/internal/store":           {"mayfly/internal/fleet"},
		"mayfly/internal/store/storetest": {"mayfly/internal/fleet"},
		"mayfly/internal/web":             {"mayfly/internal/fleet"},
		"mayfly/internal/config":          {"mayfly/internal/fleet"},
	}
	simMay := []string{"mayfly/internal/sim", "mayfly/internal/guest/wire", "mayfly/internal/guest/helper"}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "mayfly/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec, seen := json.NewDecoder(strings.NewReader(string(out))), 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, "mayfly/cmd/") {
			continue
		}
		seen++
		may, known := allowed[p.ImportPath]
		sim := p.ImportPath == "mayfly/internal/sim" || strings.HasPrefix(p.ImportPath, "mayfly/internal/sim/")
		if !known && !sim {
			t.Errorf("%s is a room that the design does not have", p.ImportPath)
		}
		for _, i := range p.Imports {
			ours := strings.HasPrefix(i, "mayfly/")
			if p.ImportPath == "mayfly/internal/fleet" && !ours {
				for _, banned := range []string{"net", "os", "io", "database", "log"} {
					if i == banned || strings.HasPrefix(i, banned+"/") {
						t.Errorf("fleet imports %s: it must stay pure", i)
					}
				}
			}
			if !ours {
				continue
			}
			ok := slices.Contains(may, i)
			if sim {
				ok = slices.ContainsFunc(simMay, func(m string) bool { return i == m || strings.HasPrefix(i, m+"/") })
			}
			if !ok {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were seen", seen)
	}
}
