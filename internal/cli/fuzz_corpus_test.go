package cli

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each fuzz target of the module has a corpus in the tree, not only in
// somebody's build cache, and is run by the gate.
func TestFuzzCorpora(t *testing.T) {
	root := os.DirFS(filepath.Join("..", ".."))
	gate, err := fs.ReadFile(root, ".ci/run")
	if err != nil {
		t.Fatal(err)
	}
	targets := 0
	target := regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)
	err = fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (file == "hack" || d.Name() == ".git" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		for _, m := range target.FindAllSubmatch(source, -1) {
			targets++
			pkg, name := path.Dir(file), string(m[1])
			seeds, err := fs.Glob(root, path.Join(pkg, "testdata", "fuzz", name, "*"))
			if err != nil {
				return err
			}
			if len(seeds) < 5 {
				t.Errorf("%s has %d files in %s/testdata/fuzz, want 5 or more", name, len(seeds), pkg)
			}
			for _, seed := range seeds {
				if b, err := fs.ReadFile(root, seed); err != nil || !strings.HasPrefix(string(b), "go test fuzz v1\n") {
					t.Errorf("%s is no seed: %v", seed, err)
				}
			}
			if !regexp.MustCompile(`(?:^|\s)` + regexp.QuoteMeta(pkg+":"+name) + `(?:[\s;]|$)`).Match(gate) {
				t.Errorf(".ci/run does not name %s:%s", pkg, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if targets < 7 {
		t.Errorf("found %d targets: is the tree read rightly?", targets)
	}
}
