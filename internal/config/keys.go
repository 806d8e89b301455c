package config

import (
	"fmt"
	"reflect"
	"strings"
)

// keyOf is the key of a struct's field; "" if the file does not set it.
func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if key == "-" {
		return ""
	}
	return key
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if k := keyOf(v.Type().Field(i)); k != "" && k == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" {
			keys = append(keys, k)
		}
	}
	return keys
}

// instead says what to write instead of a key that is not known.
func instead(t reflect.Type, key string) string {
	keys := keysOf(t)
	for _, k := range keys {
		// secret and token are the likeliest slip, and the one that should not be mended by another spelling.
		if k == key+"_file" {
			return fmt.Sprintf("secrets do not stand in this file: write it to a file of its own and name that in %s", k)
		}
	}
	best, distance := "", max(2, len(key)/3)+1
	for _, k := range keys {
		if d := editDistance(strings.ToLower(key), k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "the keys here are " + strings.Join(keys, ", ")
}

// editDistance counts the letters to add, drop, change or swap with their neighbour (optimal string alignment).
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	before, last, this := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		this[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			this[j+1] = min(last[j+1]+1, this[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				this[j+1] = min(this[j+1], before[j-1]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
