// Package secrettest looks at every type of a package that can reach a secret,
// and makes sure that nothing prints it.
package secrettest

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

const sentinel = "SENTINEL-walk"

// Types checks the package in the current folder. types must be all of its
// named types that can reach a secret, also through types of other packages:
// those are named by others, as "cache.Entry". plain names the fields that look
// like a secret's and are none, or that must be text, as "record.Token".
func Types(t *testing.T, types []reflect.Type, others, plain []string) {
	t.Helper()
	var given []string
	for _, typ := range types {
		given = append(given, typ.Name())
		t.Run(typ.Name(), func(t *testing.T) { print(t, typ) })
	}
	structs := parse(t)
	reaching := map[string]bool{"Secret": true}
	for grown := true; grown; {
		grown = false
		for name, fields := range structs {
			for _, f := range fields {
				if !reaching[name] && (f.mentions("secret.String") || slices.ContainsFunc(others, f.mentions) || slices.ContainsFunc(slices.Collect(maps.Keys(reaching)), f.mentions)) {
					reaching[name], grown = true, true
				}
			}
		}
	}
	delete(reaching, "Secret")
	found := slices.Sorted(maps.Keys(reaching))
	slices.Sort(given)
	if !slices.Equal(found, given) {
		t.Errorf("these types can reach a secret: %q; the test looks at %q", found, given)
	}

	// A secret that is no secret.String.
	looks := regexp.MustCompile(`(?i)token|secret|refresh|device_?code|verifier|bearer|passw|cookie`)
	for name, fields := range structs {
		for _, f := range fields {
			if looks.MatchString(f.name) && (f.typ == "string" || f.typ == "[]byte" || f.typ == "[]string") && !slices.Contains(plain, name+"."+f.name) {
				t.Errorf("%s.%s is a %s: make it a secret, or name it as an exception", name, f.name, f.typ)
			}
		}
	}
}

type field struct{ name, typ string }

func (f field) mentions(typ string) bool {
	return regexp.MustCompile(`(^|[^.\w])` + regexp.QuoteMeta(typ) + `\b`).MatchString(f.typ)
}

// parse gives the fields of each struct type that the package declares.
func parse(t *testing.T) map[string][]field {
	t.Helper()
	names, err := filepath.Glob("*.go") // of every system
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string][]field{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			switch typ := spec.Type.(type) {
			case *ast.StructType:
				structs[spec.Name.Name] = fieldsOf(typ)
			case *ast.SelectorExpr, *ast.ArrayType, *ast.MapType, *ast.StarExpr:
				if !spec.Assign.IsValid() { // not an alias
					structs[spec.Name.Name] = []field{{typ: text(typ)}}
				}
			}
			return true
		})
	}
	if len(structs) == 0 {
		t.Fatal("no types were found: is the folder right?")
	}
	return structs
}

func fieldsOf(s *ast.StructType) (fields []field) {
	for _, f := range s.Fields.List {
		if inner, ok := f.Type.(*ast.StructType); ok {
			fields = append(fields, fieldsOf(inner)...)
			continue
		}
		names := []string{""}
		if len(f.Names) > 0 {
			names = names[:0]
			for _, n := range f.Names {
				names = append(names, n.Name)
			}
		}
		for _, n := range names {
			fields = append(fields, field{n, text(f.Type)})
		}
	}
	return fields
}

// text writes a type as in the source. What a function takes or gives is not
// reached by printing it.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return "*" + text(e.X)
	case *ast.ArrayType:
		return "[]" + text(e.Elt)
	case *ast.MapType:
		return "map[" + text(e.Key) + "]" + text(e.Value)
	case *ast.IndexExpr:
		return text(e.X) + "[" + text(e.Index) + "]"
	}
	return fmt.Sprintf("%T", e)
}

// print shows a value of the type in all ways, with a secret wherever one fits.
func print(t *testing.T, typ reflect.Type) {
	v := reflect.New(typ)
	if n := fill(v.Elem(), 0); n == 0 {
		t.Fatal("no place for a secret was found in it")
	}
	inside := struct {
		Shown  any
		hidden any
		pair   []any
	}{v.Elem().Interface(), v.Interface(), []any{v.Interface(), v.Elem().Interface()}}
	var out bytes.Buffer
	for _, value := range []any{v.Interface(), v.Elem().Interface(), inside, &inside, []any{v.Interface()}, map[string]any{"k": v.Elem().Interface()}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		fmt.Fprintln(&out, value, fmt.Errorf("wrapped: %v", value))
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("x", "v", value, slog.Group("g", "v", value))
		}
		b, err := json.Marshal(value)
		fmt.Fprintln(&out, string(b), err)
		err = gob.NewEncoder(&out).Encode(value)
		fmt.Fprintln(&out, err)
	}
	for _, form := range []string{
		sentinel, hex.EncodeToString([]byte(sentinel)), strings.ToUpper(hex.EncodeToString([]byte(sentinel))),
		base64.StdEncoding.EncodeToString([]byte(sentinel))[:12], fmt.Sprint([]byte(sentinel)),
	} {
		if i := strings.Index(out.String(), form); i >= 0 {
			t.Fatalf("the secret shows: %s", out.String()[max(0, i-200):i+len(form)])
		}
	}
}

// fill puts the secret into each place below v, and says how many there were.
func fill(v reflect.Value, depth int) (places int) {
	if !v.CanSet() { // an unexported field
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	if v.Type().ConvertibleTo(reflect.TypeFor[secret.String]()) {
		v.Set(reflect.ValueOf(secret.New(sentinel)).Convert(v.Type()))
		return 1
	}
	ours := v.Type().PkgPath() == "" || strings.Contains(v.Type().PkgPath(), "kubectl-oidc_device")
	if depth > 5 || !ours {
		return 0
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			places += fill(v.Field(i), depth+1)
		}
	case reflect.Pointer:
		if target := reflect.New(v.Type().Elem()); strings.Contains(v.Type().Elem().PkgPath(), "kubectl-oidc_device") {
			places = fill(target.Elem(), depth+1)
			v.Set(target)
		}
	case reflect.Slice:
		one := reflect.MakeSlice(v.Type(), 1, 1)
		places = fill(one.Index(0), depth+1)
		v.Set(one)
	}
	return places
}
