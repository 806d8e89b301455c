package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"mayfly/internal/fleet"
)

// We walk the parsed file ourselves, against the struct, where goccy/go-yaml v1.19.2's Strict decoder
// would do: it stops at the first problem, says Go's types instead of the path, and keeps no places for
// the validation that comes after.

// decode fills c from the file and keeps where each value stands.
func decode(text []byte, c *Config, r *report) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var e yaml.Error
		if !errors.As(err, &e) || e.GetToken() == nil {
			r.at(place{}, "no YAML: %s", oneLine(err.Error()))
			return
		}
		p, text := e.GetToken().Position, e.GetMessage()
		if strings.Contains(text, "'\t'") {
			text = "a tab cannot indent: use blanks"
		}
		r.at(place{p.Line, p.Column}, "no YAML: %s", oneLine(text))
		return
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil || isNothing(d.Body) {
			continue
		}
		if body != nil {
			r.at(placeOf(d.Body), "a second document: leave out what is from the --- on")
			return
		}
		body = d.Body
	}
	if body == nil {
		r.at(place{}, "it is empty: `mayfly config example` writes one to begin with")
		return
	}
	r.value("", body, reflect.ValueOf(c).Elem())
}

func isNothing(n ast.Node) bool {
	switch n.(type) {
	case *ast.NullNode, *ast.CommentGroupNode, *ast.CommentNode:
		return true
	}
	return false
}

func placeOf(n ast.Node) place {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return placeOf(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return placeOf(m.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{t.Position.Line, t.Position.Column}
}

// value sets v, of the kind that its type says, from n. Nothing at all ("key:") is as if the key were not there.
func (r *report) value(path string, n ast.Node, v reflect.Value) {
	if n == nil || isNothing(n) {
		return
	}
	if path != "" {
		if _, known := r.places[path]; !known || v.Kind() != reflect.Struct {
			r.places[path] = placeOf(n)
		}
	}
	scalar := false
	switch v.Interface().(type) {
	case time.Duration, fleet.Bytes, VMIDs:
		scalar = true
	}
	switch {
	case scalar:
		r.scalar(path, n, v)
	case v.Kind() == reflect.Struct:
		r.fields(path, n, v)
	case v.Kind() == reflect.Map:
		r.entries(path, n, v)
	case v.Kind() == reflect.Slice:
		r.items(path, n, v)
	default:
		r.scalar(path, n, v)
	}
}

// pairs are the keys and values of a mapping; ok is false, and told, if n is none.
func (r *report) pairs(path string, n ast.Node) (pairs []*ast.MappingValueNode, ok bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	r.at(placeOf(n), "%skeys with values are wanted here, `key: value`, not %s", prefix(path), kind(n))
	return nil, false
}

func (r *report) fields(path string, n ast.Node, v reflect.Value) {
	pairs, _ := r.pairs(path, n)
	for _, pair := range pairs {
		key, sub := r.key(path, pair.Key)
		if key == "" {
			continue
		}
		field, known := fieldOf(v, key)
		if !known {
			r.at(placeOf(pair.Key), "%s: unknown key: %s", sub, instead(v.Type(), key))
			continue
		}
		r.places[sub] = placeOf(pair.Key)
		r.value(sub, pair.Value, field)
	}
}

func (r *report) entries(path string, n ast.Node, v reflect.Value) {
	pairs, ok := r.pairs(path, n)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, pair := range pairs {
		key, sub := r.key(path, pair.Key)
		if key == "" {
			continue
		}
		r.places[sub] = placeOf(pair.Key)
		item := reflect.New(v.Type().Elem()).Elem()
		r.value(sub, pair.Value, item)
		v.SetMapIndex(reflect.ValueOf(key), item)
	}
}

func (r *report) items(path string, n ast.Node, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		r.at(placeOf(n), "%sa list is wanted, `[a, b]` or lines that begin with `- `, not %s", prefix(path), kind(n))
		return
	}
	for i, item := range list.Values {
		sub := fmt.Sprintf("%s[%d]", path, i)
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if isNothing(item) {
			r.at(placeOf(item), "%s: nothing stands here: leave the line out", sub)
			continue
		}
		r.value(sub, item, v.Index(i))
	}
}

// key is a key and its path; "", and told, if it is not a plain word.
func (r *report) key(path string, n ast.MapKeyNode) (key, sub string) {
	text, ok := plain(n)
	if !ok || text == "" {
		r.at(placeOf(n), "%sa key is a plain word here, not %s", prefix(path), kind(n))
		return "", ""
	}
	if path == "" {
		return text, text
	}
	return text, path + "." + text
}

// plain is the text of a scalar as it stands in the file: 012 is 012, and yes is yes.
func plain(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func (r *report) scalar(path string, n ast.Node, v reflect.Value) {
	text, ok := plain(n)
	if !ok {
		r.at(placeOf(n), "%sone value is wanted, not %s", prefix(path), kind(n))
		return
	}
	r.places[path] = placeOf(n)
	wrong := func(wanted string) { r.bad(path, "%s is wanted, not %q", wanted, brief(text)) }
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			wrong("a duration such as 90s, 15m or 24h")
		}
		*p = d
	case *fleet.Bytes:
		b, err := parseBytes(text)
		if err != nil {
			wrong("an amount such as 512MiB or 8GiB")
		}
		*p = b
	case *VMIDs:
		ids, err := parseVMIDs(text)
		if err != nil {
			wrong("a range such as 100000-109999")
		}
		*p = ids
	case *string:
		*p = text
	case *bool:
		if text != "true" && text != "false" {
			wrong("true or false")
		}
		*p = text == "true"
	case *float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			wrong("a number")
		}
		*p = f
	case *int:
		i, err := strconv.Atoi(text)
		if err != nil {
			wrong("a whole number")
		}
		*p = i
	case *int64:
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			wrong("a whole number")
		}
		*p = i
	}
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor, alias or merge: write the values out"
	case *ast.TagNode:
		return "a tag: leave it out"
	}
	return "one value"
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func brief(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
