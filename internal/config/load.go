package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"mayfly/internal/fleet"
)

// maxFile bounds what we read of a file, in bytes.
const maxFile = 1 << 20

// Load reads the file at path, and the secrets that it names from their files or, by env, from the environment.
// Relative paths in it are relative to its folder. What a person must mend is an [Error].
func Load(path string, env func(string) string) (*Config, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("it does not exist: `mayfly config example` prints one to start from")
	}
	if err != nil {
		return nil, &Error{file: path, problems: []problem{{text: err.Error()}}}
	}
	return Parse(path, text, env)
}

// Parse is Load for a text that is at hand; path names it in errors, and its folder is that of relative paths.
func Parse(path string, text []byte, env func(string) string) (*Config, error) {
	c, r := &Config{}, &report{places: map[string]place{}}
	if decode(text, c, r); len(r.problems) > 0 {
		return nil, r.err(path, text)
	}
	withDefaults(c, func(path string) bool { _, ok := r.places[path]; return ok })
	c.resolve(filepath.Dir(path))
	c.check(r)
	c.readSecrets(r, env)
	if err := r.err(path, text); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate checks everything that can be checked without reading another file; an [Error] says what is wrong.
func (c *Config) Validate() error {
	r := &report{}
	c.check(r)
	return r.err("configuration", nil)
}

// resolve makes relative paths relative to dir.
func (c *Config) resolve(dir string) {
	for _, p := range []*string{
		&c.Web.TokenFile, &c.Webhook.SecretFile, &c.Store.Path, &c.Proxmox.SecretFile, &c.Proxmox.CAFile,
		&c.GitHub.TokenFile, &c.SSH.KeyFile,
	} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

//go:embed example.yaml
var example string

// Example is a file with every key and what it means; it loads once the secrets that it names are there.
func Example() string { return example }

// Print writes c as it is in effect, defaults filled in, as a file that would load again. Of secrets it
// says only that they are there.
func (c *Config) Print(w io.Writer) error {
	shown := *c
	shown.Web.Token = "" // lets an empty web be left out
	var b bytes.Buffer
	b.WriteString("# Secrets in effect:\n")
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"web.token", c.Web.Token != ""},
		{"webhook.secret", len(c.Webhook.Secrets) > 0},
		{"proxmox.secret", c.Proxmox.Secret != ""},
		{"github.token", c.GitHub.Token != ""},
		{"ssh.key", c.SSH.Signer != nil},
	} {
		if s.given {
			fmt.Fprintf(&b, "#   %s: ***\n", s.name)
		}
	}
	text, err := yaml.MarshalWithOptions(shown, yaml.IndentSequence(true),
		yaml.CustomMarshaler(func(b fleet.Bytes) ([]byte, error) { return []byte(formatBytes(b)), nil }),
		yaml.CustomMarshaler(func(v VMIDs) ([]byte, error) { return []byte(v.String()), nil }),
	)
	if err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	b.Write(text)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, plainPathError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file: name one")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("it is longer than %s: name the right file", formatBytes(maxFile))
	}
	return text, nil
}

// plainPathError drops the path, which the caller names, and says what to do where that is clear.
func plainPathError(err error) error {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return errors.New("this user may not read it: make it theirs with chown")
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case errors.As(err, &p):
		return fmt.Errorf("it cannot be read (%w): name a file that can", p.Err)
	}
	return err
}

// lines are the lines of a text, without blanks around them and without empty ones.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}
