package fleet_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPure reads the sources: the core knows nothing of the world but what it is given.
func TestPure(t *testing.T) {
	allowed := map[string]bool{ // each is a pure part of the standard library
		"cmp": true, "errors": true, "fmt": true, "maps": true, "regexp": true, "slices": true, "strings": true, "time": true,
	}
	clock := map[string]bool{
		"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "Tick": true, "NewTimer": true, "NewTicker": true,
	}
	printing := map[string]bool{"Print": true, "Printf": true, "Println": true}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		read++
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil || !allowed[path] || imp.Name != nil {
				t.Errorf("%s imports %s", name, imp.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			at := func(pos token.Pos) token.Position { return fset.Position(pos) }
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%v: a goroutine", at(n.Pos()))
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if ok && (pkg.Name == "time" && clock[n.Sel.Name] || pkg.Name == "fmt" && printing[n.Sel.Name]) {
					t.Errorf("%v: %s.%s", at(n.Pos()), pkg.Name, n.Sel.Name)
				}
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%v: an init", at(n.Pos()))
				}
			case *ast.ChanType:
				t.Errorf("%v: a channel", at(n.Pos()))
			}
			return true
		})
	}
	if read < 8 {
		t.Fatalf("only %d sources were read", read)
	}
}
