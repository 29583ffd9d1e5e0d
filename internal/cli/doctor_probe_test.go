package cli

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
)

// A doctor that is killed while it tries the cache folder leaves a file that
// the next session's save sweeps away.
func TestProbeIsSwept(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	e := &cache.Entry{
		Key: cache.Key{Issuer: "https://idp.example.com", ClientID: "kubectl", Scopes: []string{"openid"}}, Token: cache.NewSecret("t"),
		ApprovedAt: time.Now(), TokenIssuedAt: time.Now(), TokenExpiresAt: time.Now().Add(time.Hour),
	}
	probe, err := writeProbe(dir, e.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(probe); err != nil || info.Size() == 0 {
		t.Errorf("nothing was written: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(probe, old, old); err != nil {
		t.Fatal(err)
	}
	if ids, err := cache.NewDisk(dir).List(); err != nil || len(ids) != 0 {
		t.Errorf("it is taken for a session: %v, %v", ids, err)
	}
	if err := cache.NewDisk(dir).Save(e); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(probe); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it stays: %v", err)
	}
}
