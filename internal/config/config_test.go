package config_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/tools/txtar"

	"mayfly/internal/config"
	"mayfly/internal/fleet"
)

var update = flag.Bool("update", false, "write what is got to testdata as what is wanted")

// secret is in every secret file of these tests, so that none of their messages may have it.
const secret = "5ecretsecretsecretsecret"

// folder has every file that example.yaml names.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	key, err := ssh.MarshalPrivateKey(ed25519.NewKeyFromSeed([]byte(secret+"seedseed")), secret)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed25519.NewKeyFromSeed([]byte(secret+"seedseed")), "", []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"id_ed25519": string(pem.EncodeToMemory(key)), "locked": string(pem.EncodeToMemory(locked)),
		"webhook-secret": secret + "\n", "two-secrets": secret + "1\r\n\n" + secret + "2\n", "proxmox-secret": secret + "\n",
		"github-token": secret + "\n", "web-token": secret, "short": "short\n", "empty": " \n", "open": secret + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func env(name string) string {
	switch name {
	case "TOKEN":
		return secret
	case "BLANK":
		return " \n"
	}
	return ""
}

func loadText(t testing.TB, dir, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(dir, "mayfly.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path, env)
}

// TestMessages holds what is said of files that are wrong, or right and unusual, to testdata/*.txtar. In
// these, NAME.yaml is the file and NAME.says what is said of it; base.yaml is a right one, of which a NAME.edit
// changes parts: lines "old => new", where " | " is a new line.
func TestMessages(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no testdata", err)
	}
	dir := folder(t)
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		base, says := "", map[string]string{}
		for _, f := range archive.Files {
			if f.Name == "base.yaml" {
				base = string(f.Data)
			}
			if name, ok := strings.CutSuffix(f.Name, ".says"); ok {
				says[name] = string(f.Data)
			}
		}
		var out []txtar.File
		for _, f := range archive.Files {
			name, kind, _ := strings.Cut(f.Name, ".")
			if kind == "says" {
				continue
			}
			text := string(f.Data)
			if kind == "edit" {
				text = edit(t, name, base, text)
			}
			got := said(t, dir, name, text)
			if want := says[name]; !*update && got != want {
				t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(want, got))
			}
			if out = append(out, f); got != "" {
				out = append(out, txtar.File{Name: name + ".says", Data: []byte(got)})
			}
		}
		if *update {
			archive.Files = out
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func edit(t *testing.T, name, text, edits string) string {
	for line := range strings.Lines(edits) {
		from, to, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " => ")
		if !ok || !strings.Contains(text, from) {
			t.Fatalf("%s: the base has nothing to change by %q", name, line)
		}
		text = strings.Replace(text, from, strings.ReplaceAll(to, " | ", "\n"), 1)
	}
	return text
}

func said(t *testing.T, dir, name, text string) string {
	c, err := loadText(t, dir, text)
	var b strings.Builder
	if err != nil {
		var e *config.Error
		if !errors.Is(err, fleet.ErrConfig) || !errors.As(err, &e) {
			t.Errorf("%s: no class: %v", name, err)
		}
		b.WriteString(err.Error() + "\n")
	} else {
		for _, w := range c.Warnings() {
			b.WriteString("warning: " + w + "\n")
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: what was loaded is not valid: %v", name, err)
		}
	}
	if strings.Contains(b.String(), secret) {
		t.Errorf("%s: a secret is told:\n%s", name, b.String())
	}
	return strings.ReplaceAll(b.String(), dir, "DIR")
}

func TestExample(t *testing.T) {
	dir := folder(t)
	c, err := loadText(t, dir, config.Example())
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	want := []fleet.Pool{{
		Name: "win", Labels: []string{"self-hosted", "windows", "x64", "win11"}, Max: 10, Templates: map[string]int{"pve1": 9000},
		CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute, JobTimeout: 24 * time.Hour,
	}}
	if d := cmp.Diff(want, c.FleetPools()); d != "" {
		t.Errorf("pools (-want +got):\n%s", d)
	}
	if c.GitHub.Token.Reveal() != secret || c.Proxmox.Secret.Reveal() != secret || len(c.Webhook.Secrets) != 1 || c.SSH.Signer == nil {
		t.Error("a secret is not read")
	}
	if want := filepath.Join(dir, "id_ed25519"); c.SSH.KeyFile != want {
		t.Errorf("a relative path became %s, want %s", c.SSH.KeyFile, want)
	}
}

// The example names every key, and what it shows behind a # as the default is the default.
func TestExampleIsComplete(t *testing.T) {
	var shown []string
	for line := range strings.Lines(config.Example()) {
		words := strings.Fields(strings.TrimLeft(strings.TrimSpace(line), "#- "))
		if len(words) > 0 {
			if key, ok := strings.CutSuffix(words[0], ":"); ok {
				shown = append(shown, key)
			}
		}
	}
	var keys func(reflect.Type)
	keys = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Slice, reflect.Map:
			keys(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				key, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
				if key == "-" || key == "" {
					continue
				}
				if !slices.Contains(shown, key) {
					t.Errorf("%s.%s: the example does not name %s", typ.Name(), typ.Field(i).Name, key)
				}
				keys(typ.Field(i).Type)
			}
		}
	}
	keys(reflect.TypeFor[config.Config]())

	dir := folder(t)
	plain, err := loadText(t, dir, config.Example())
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(config.Example()) {
		defaults := []string{"listen: 1", "pool: mayfly", "vmids:", "reserve:", "storage_watermark:", "gates:", "clone: 6", "destroy:", "agent:", "rate:", "first_ping:", "runner_group:", "user:", "port:", "command:", "host_key_path:", "ready:", "clone_timeout:", "boot_timeout:", "job_timeout:", "log:", "level:", "format:", "simulation:", "speed:", "store:", "path: /var"}
		words := strings.TrimLeft(line, " ")
		for _, d := range defaults {
			if strings.HasPrefix(strings.TrimLeft(words, "# "), d) {
				line = strings.Replace(line, "#", "", 1)
				break
			}
		}
		text.WriteString(line)
	}
	full, err := loadText(t, dir, text.String())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(printed(t, plain), printed(t, full)); d != "" {
		t.Errorf("the example's defaults are not the defaults (-default +example):\n%s", d)
	}
}

func printed(t testing.TB, c *config.Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What is printed has no secret, and loads as the same.
func TestPrint(t *testing.T) {
	dir := folder(t)
	first, err := loadText(t, dir, config.Example()+`
listen: 0.0.0.0:8080
web: {token_file: web-token}
log: {level: debug}
`)
	if err != nil {
		t.Fatal(err)
	}
	text := printed(t, first)
	if strings.Contains(text, secret) || strings.Count(text, "***") != 5 {
		t.Errorf("not five hidden secrets:\n%s", text)
	}
	second, err := loadText(t, dir, text)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	if d := cmp.Diff(text, printed(t, second)); d != "" {
		t.Errorf("printed, loaded and printed again (-first +second):\n%s", d)
	}
	if d := cmp.Diff(first.FleetPools(), second.FleetPools()); d != "" {
		t.Error(d)
	}
}

func TestLoadSaysTheFile(t *testing.T) {
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "no.yaml"): "it does not exist: `mayfly config example` prints one to start from",
		t.TempDir():                           "it is no regular file: name one",
	} {
		_, err := config.Load(path, env)
		if err == nil || err.Error() != path+": "+want || !errors.Is(err, fleet.ErrConfig) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// FuzzConfig: whatever the file, there is a Config that is valid, or an error of ours that names a place in the file.
func FuzzConfig(f *testing.F) {
	f.Add(config.Example())
	for _, text := range []string{
		"", "a", "- a", "a: b", "instance: {", "pools: [{}, 3, [x]]", "proxmox: {nodes: {a.b: {memory: 3}}}", "? [a]: b", "&a x: *a",
		"<<: {a: b}", "!!map {}", "instance: |\n  k3f9", "---\n---\na: b", "\ttab: x", "instance: \"\\x00\"", "pools:\n -", "secret: x",
		"proxmox: {vmids: 9999999999999999999-1, reserve: -1GiB, gates: {rate: 1e9}}",
	} {
		f.Add(text)
	}
	dir := folder(f)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse(filepath.Join(dir, "mayfly.yaml"), []byte(text), env)
		var e *config.Error
		switch {
		case err == nil:
			if err := c.Validate(); err != nil {
				t.Errorf("loaded and not valid: %v", err)
			}
			c.Warnings()
			c.FleetPools()
			printed(t, c)
		case !errors.As(err, &e) || strings.TrimSpace(err.Error()) == "" || !errors.Is(err, fleet.ErrConfig):
			t.Errorf("no error of ours: %v", err)
		case strings.Contains(err.Error(), secret):
			t.Errorf("a secret is told: %v", err)
		}
	})
}
