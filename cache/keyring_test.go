//go:build linux

package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/zalando/go-keyring"
)

// desktop is a D-Bus of the test's own, with a gnome-keyring-daemon on it
// whose keyrings are in a folder of the test's own.
type desktop struct {
	t      *testing.T
	dir    string
	bus    *dbus.Conn
	daemon *exec.Cmd
}

// newDesktop starts the D-Bus alone.
func newDesktop(t *testing.T) *desktop {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	// t.TempDir's names are too long for a socket's.
	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address := "unix:path=" + filepath.Join(dir, "bus")
	// No service folder: nothing is started that the test has not asked for,
	// such as the window that asks for a password.
	config := `<busconfig><type>session</type><listen>` + address + `</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	d := &desktop{t: t, dir: dir}
	daemon := d.start("", "dbus-daemon", "--nofork", "--config-file="+filepath.Join(dir, "bus.conf"))
	t.Cleanup(func() { stop(daemon) })
	d.eventually("the D-Bus", func() (err error) { d.bus, err = dbus.ConnectSessionBus(dbus.WithContext(t.Context())); return err })
	// go-keyring keeps its connection. It must be seen to be gone before the
	// next test, whose D-Bus is another.
	shared, err := dbus.SessionBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(daemon); <-shared.Context().Done() })
	return d
}

// newKeyringDesktop starts an unlocked keyring on it, too.
func newKeyringDesktop(t *testing.T) *desktop {
	t.Helper()
	d := newDesktop(t)
	d.login("password")
	return d
}

// login starts the keyring with a password; without one it stays locked.
func (d *desktop) login(password string) {
	d.t.Helper()
	args := []string{"--foreground", "--components=secrets", "--control-directory=" + filepath.Join(d.dir, "control")}
	if password != "" {
		args = append(args, "--unlock")
	}
	d.daemon = d.start(password, "gnome-keyring-daemon", args...)
	daemon := d.daemon
	d.t.Cleanup(func() { stop(daemon) })
	d.eventually("the keyring", func() error {
		var owned bool
		err := d.bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, secretsName).Store(&owned)
		if err == nil && !owned {
			err = errors.New("not there yet")
		}
		if err == nil && password != "" {
			err = keyringReady(d.t.Context())
		}
		return err
	})
}

func (d *desktop) start(stdin, name string, args ...string) *exec.Cmd {
	d.t.Helper()
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed cleans nothing up
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	return c
}

func stop(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

func (d *desktop) eventually(what string, try func() error) {
	d.t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%s does not start: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *desktop) lock() {
	d.t.Helper()
	if err := d.bus.Object(secretsName, secretsPath).Call(secretsService+".Lock", 0, []dbus.ObjectPath{secretsLogin}).Err; err != nil {
		d.t.Fatal(err)
	}
}

// items lists what is in the keyring: "<folder>/<id>/<place> <item>".
func (d *desktop) items() []string {
	d.t.Helper()
	value, err := d.bus.Object(secretsName, secretsLogin).GetProperty("org.freedesktop.Secret.Collection.Items")
	if err != nil {
		d.t.Fatal(err)
	}
	var all []string
	for _, path := range value.Value().([]dbus.ObjectPath) {
		value, err := d.bus.Object(secretsName, path).GetProperty("org.freedesktop.Secret.Item.Attributes")
		if err != nil {
			d.t.Fatal(err)
		}
		a := value.Value().(map[string]string)
		all = append(all, strings.TrimPrefix(a["service"], "kubectl-oidc_device/")+" "+a["username"])
	}
	slices.Sort(all)
	return all
}

func mustSave(t *testing.T, s Storage, e *Entry) {
	t.Helper()
	if err := s.Save(e); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t *testing.T, s Storage, want *Entry) {
	t.Helper()
	got, err := s.Load(want.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if !got.Token.Equal(want.Token) || !got.RefreshToken.Equal(want.RefreshToken) {
		t.Errorf("other tokens came back: %d and %d bytes, want %d and %d", len(got.Token.Reveal()), len(got.RefreshToken.Reveal()), len(want.Token.Reveal()), len(want.RefreshToken.Reveal()))
	}
	if fmt.Sprint(got.Key) != fmt.Sprint(want.Key) || got.Name != want.Name || !got.TokenExpiresAt.Equal(want.TokenExpiresAt) || !got.RenewedAt.Equal(want.RenewedAt) {
		t.Errorf("another entry came back: %v", got)
	}
}

// mustReason wants an error of the keyring, soon, that gives nothing away.
func mustReason(t *testing.T, want KeyringReason, f func() error) {
	t.Helper()
	began := time.Now()
	err := f()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	var unusable *KeyringError
	if !errors.As(err, &unusable) || unusable.Reason != want {
		t.Errorf("got %v, want a KeyringError: %s", err, want)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", err, err), "SENTINEL") {
		t.Errorf("the error gives a token away: %v", err)
	}
}

func mustAllReason(t *testing.T, want KeyringReason, k *Keyring, e *Entry) {
	t.Helper()
	mustReason(t, want, func() error { _, err := k.Load(e.Key.ID()); return err })
	mustReason(t, want, func() error { return k.Save(e) })
	mustReason(t, want, func() error { return k.Delete(e.Key.ID()) })
	mustReason(t, want, func() error { _, err := k.SetAside(e.Key.ID()); return err })
}

func mustCorrupt(t *testing.T, s Storage, id string) {
	t.Helper()
	_, err := s.Load(id)
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("got %v, want a CorruptError", err)
	}
	if strings.Contains(fmt.Sprint(err), "SENTINEL") {
		t.Errorf("the error gives a token away: %v", err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKeyringSaveAndLoad(t *testing.T) {
	desktop := newKeyringDesktop(t)
	dir := filepath.Join(t.TempDir(), "cache")
	k, e := NewKeyring(NewDisk(dir)), testEntry()
	id := e.Key.ID()
	if _, err := k.Load(id); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	mustSave(t, k, e)
	mustLoad(t, k, e)
	if got := files(t, dir); !slices.Equal(got, []string{id + ".keyring.json"}) {
		t.Errorf("files: %v", got)
	}
	raw, err := os.ReadFile(k.Path(id))
	if err != nil || bytes.Contains(raw, []byte("SENTINEL")) {
		t.Errorf("%v, or a token is on disk: %s", err, raw)
	}
	if info, err := os.Stat(k.Path(id)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := desktop.items(); len(got) != 2 || !strings.HasSuffix(got[0], id+"/a refresh-token") || !strings.HasSuffix(got[1], id+"/a token") {
		t.Errorf("items: %q", got)
	}
	// To a Disk it is not a session, whatever it is called.
	if _, err := NewDisk(dir).Load(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(NewDisk(dir).Path(id), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	mustCorrupt(t, NewDisk(dir), id)
	if ids, err := NewDisk(dir).List(); err != nil || !slices.Equal(ids, []string{id}) {
		t.Errorf("List: %v, %v", ids, err)
	}

	e.RefreshToken = Secret{}
	mustSave(t, k, e)
	mustLoad(t, k, e)
	e.Token, e.RefreshToken = Secret{}, NewSecret("SENTINEL-refresh")
	mustSave(t, k, e)
	mustLoad(t, k, e)
	for range 2 {
		if err := k.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := desktop.items(); len(got) != 0 {
		t.Errorf("items are left: %q", got)
	}
	if _, err := k.Load(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestKeyringSplitsLargeTokens(t *testing.T) {
	desktop := newKeyringDesktop(t)
	k, e := NewKeyring(NewDisk(t.TempDir())), testEntry()
	for _, size := range []int{pieceSize, pieceSize + 1, 2 * pieceSize, 10000} {
		e.Token = NewSecret(strings.Repeat("x", size))
		mustSave(t, k, e)
		mustLoad(t, k, e)
		if got, want := len(desktop.items()), (size+pieceSize-1)/pieceSize+1; got != want {
			t.Errorf("%d bytes: %d items, want %d", size, got, want)
		}
	}
	e.Token, e.RefreshToken = NewSecret("short"), Secret{}
	mustSave(t, k, e)
	mustLoad(t, k, e)
	if got := desktop.items(); len(got) != 1 {
		t.Errorf("pieces are left: %q", got)
	}
}

// One keyring serves all folders: neither two sessions nor the same one of two
// folders may mix.
func TestKeyringKeepsSessionsApart(t *testing.T) {
	desktop := newKeyringDesktop(t)
	k, other := NewKeyring(NewDisk(t.TempDir())), NewKeyring(NewDisk(t.TempDir()))
	a, b, c := testEntry(), testEntry(), testEntry()
	b.Key.ClientID, b.Token = "other", NewSecret("SENTINEL-b")
	c.Token = NewSecret("SENTINEL-c")
	mustSave(t, k, a)
	mustSave(t, k, b)
	mustSave(t, other, c)
	mustLoad(t, k, a)
	mustLoad(t, k, b)
	mustLoad(t, other, c)
	if err := k.Delete(a.Key.ID()); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, k, b)
	mustLoad(t, other, c)
	if got := desktop.items(); len(got) != 4 {
		t.Errorf("items: %q", got)
	}
	raw, err := os.ReadFile(k.Path(b.Key.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.Path(a.Key.ID()), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	mustCorrupt(t, k, a.Key.ID())

	// People move their caches, and leave a link.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(k.disk.dir, link); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, NewKeyring(NewDisk(link)), b)
}

func TestKeyringTamperedWith(t *testing.T) {
	desktop := newKeyringDesktop(t)
	k, e := NewKeyring(NewDisk(t.TempDir())), testEntry()
	id := e.Key.ID()
	e.Token = NewSecret(strings.Repeat("SENTINEL", 1000))
	tests := map[string]func() error{
		"a piece of another token": func() error { return keyring.Set(k.service(id, placeA), "token/2", "SENTINEL") },
		"a piece is gone":          func() error { return keyring.Delete(k.service(id, placeA), "token/3") },
		"all are gone":             func() error { return keyring.DeleteAll(k.service(id, placeA)) },
		"the refresh token of another": func() error {
			return keyring.Set(k.service(id, placeA), "refresh-token", "SENTINEL")
		},
		"the record is torn": func() error { return os.Truncate(k.Path(id), 100) },
		"the record never came to be": func() error {
			return k.write(keyringRecord{about: describe(e), Place: placeNone})
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			mustSave(t, k, e)
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			mustCorrupt(t, k, id)
			aside, err := k.SetAside(id)
			if err != nil || filepath.Dir(aside) != k.disk.dir {
				t.Errorf("%s, %v", aside, err)
			}
			if _, err := k.Load(id); !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
			if got := desktop.items(); len(got) != 0 {
				t.Errorf("items are left: %q", got)
			}
			// Nor does it need to be set aside.
			mustSave(t, k, e)
			_ = spoil()
			mustSave(t, k, e)
			mustLoad(t, k, e)
			if err := k.Delete(id); err != nil {
				t.Error(err)
			}
		})
	}
}

// A process that saves is killed at any moment: the session is the old one or
// the new one, and the next Save leaves nothing else behind.
func TestKeyringSurvivesAKill(t *testing.T) {
	desktop := newKeyringDesktop(t)
	dir := t.TempDir()
	k, e := NewKeyring(NewDisk(dir)), testEntry()
	mustSave(t, k, e)
	for range 12 {
		c := exec.Command(os.Args[0], "-test.run=^TestKeyringSaver$")
		c.Env = append(os.Environ(), "CACHE_TEST_SAVE_IN="+dir)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 2)
		if _, err := io.ReadFull(out, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(40 * time.Millisecond))
		_ = c.Process.Kill()
		rest, _ := io.ReadAll(out) // as far as it came
		_ = c.Wait()
		lines := strings.Fields(string(first) + string(rest))
		saved, err := strconv.Atoi(lines[len(lines)-1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Load(e.Key.ID())
		if err != nil {
			t.Fatalf("killed after %d: %v", saved, err)
		}
		if !is(got, saved) && !is(got, saved+1) {
			t.Fatalf("killed after %d, and it is neither that nor the next", saved)
		}
	}
	mustSave(t, k, e)
	if got := desktop.items(); len(got) != 2 {
		t.Errorf("items are left: %q", got)
	}
}

// TestKeyringSaver is the process that is killed.
func TestKeyringSaver(t *testing.T) {
	dir := os.Getenv("CACHE_TEST_SAVE_IN")
	if dir == "" {
		t.Skip("it is run by TestKeyringSurvivesAKill")
	}
	k := NewKeyring(NewDisk(dir))
	for i := range 1000 {
		mustSave(t, k, numbered(i))
		fmt.Println(i)
	}
}

// numbered has tokens of two pieces and of one that say their number all along.
func numbered(i int) *Entry {
	e := testEntry()
	e.Token, e.RefreshToken = NewSecret(strings.Repeat(fmt.Sprintf("%05d.", i), 500)), NewSecret(fmt.Sprintf("refresh-%d", i))
	return e
}

func is(e *Entry, i int) bool {
	n := numbered(i)
	return e.Token.Equal(n.Token) && e.RefreshToken.Equal(n.RefreshToken)
}

// Load takes no lock, and Save deletes what Load may be about to read.
func TestKeyringLoadsWhileAnotherSaves(t *testing.T) {
	newKeyringDesktop(t)
	dir := t.TempDir()
	k := NewKeyring(NewDisk(dir))
	mustSave(t, k, numbered(0))
	done := make(chan error)
	go func() {
		for i := range 30 {
			if err := k.Save(numbered(i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for loads := 0; ; loads++ {
		select {
		case err := <-done:
			if err != nil || loads == 0 {
				t.Errorf("%v after %d loads", err, loads)
			}
			return
		default:
		}
		e, err := k.Load(testKey().ID())
		if err != nil {
			t.Error(err)
			<-done
			return
		}
		if i, err := strconv.Atoi(strings.TrimPrefix(e.RefreshToken.Reveal(), "refresh-")); err != nil || !is(e, i) {
			t.Errorf("a mixture came back: %v", err)
		}
	}
}

func TestKeyringMove(t *testing.T) {
	desktop := newKeyringDesktop(t)
	dir := t.TempDir()
	d, e := NewDisk(dir), testEntry()
	k, id := NewKeyring(d), e.Key.ID()
	if err := Move(id, d, k); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	mustSave(t, d, e)
	if err := Move(id, d, k); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, k, e)
	if got := files(t, dir); !slices.Equal(got, []string{id + ".keyring.json"}) {
		t.Errorf("files: %v", got)
	}
	if err := Move(id, k, d); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, d, e)
	if got := files(t, dir); !slices.Equal(got, []string{id + ".json"}) {
		t.Errorf("files: %v", got)
	}
	if got := desktop.items(); len(got) != 0 {
		t.Errorf("items are left: %q", got)
	}
}

func TestKeyringLocked(t *testing.T) {
	desktop := newKeyringDesktop(t)
	dir := t.TempDir()
	k, e := NewKeyring(NewDisk(dir)), testEntry()
	mustSave(t, k, e)
	desktop.lock()
	mustAllReason(t, KeyringLocked, k, e)
	if got, renewable, err := k.Describe(e.Key.ID()); err != nil || got.Name != "alice" || !got.Token.Empty() || !renewable {
		t.Errorf("%v, %v", got, err)
	}
	fresh := testEntry()
	fresh.Key.ClientID = "fresh"
	mustReason(t, KeyringLocked, func() error { return k.Save(fresh) })
	if got := files(t, dir); !slices.Equal(got, []string{e.Key.ID() + ".keyring.json"}) {
		t.Errorf("files: %v", got)
	}
	stop(desktop.daemon)
	desktop.login("password")
	mustLoad(t, k, e)

	// After a restart of the machine it is locked, too.
	stop(desktop.daemon)
	desktop.login("")
	mustAllReason(t, KeyringLocked, k, e)
}

// silentPrompter is the window that asks for a password, and nobody at it.
type silentPrompter struct{}

func (silentPrompter) BeginPrompting(dbus.ObjectPath) *dbus.Error { return nil }
func (silentPrompter) StopPrompting(dbus.ObjectPath) *dbus.Error  { return nil }
func (silentPrompter) PerformPrompt(dbus.ObjectPath, string, map[string]dbus.Variant, string) *dbus.Error {
	return nil
}

func TestKeyringLockedAndNobodyThere(t *testing.T) {
	desktop := newKeyringDesktop(t)
	k, e := NewKeyring(NewDisk(t.TempDir())), testEntry()
	mustSave(t, k, e)
	if err := desktop.bus.Export(silentPrompter{}, "/org/gnome/keyring/Prompter", "org.gnome.keyring.internal.Prompter"); err != nil {
		t.Fatal(err)
	}
	if _, err := desktop.bus.RequestName("org.gnome.keyring.SystemPrompter", 0); err != nil {
		t.Fatal(err)
	}
	desktop.lock()
	began := time.Now()
	mustReason(t, KeyringLocked, func() error { _, err := k.Load(e.Key.ID()); return err })
	if time.Since(began) < 2*time.Second {
		t.Error("nobody was asked")
	}
	// One that is locked between two calls makes go-keyring itself wait.
	mustReason(t, KeyringTimedOut, func() error { return k.clear("delete", e.Key.ID(), placeB) })
}

// People who log in without a password have a keyring without one: it is
// locked at first, and unlocks without a question.
func TestKeyringWithoutPassword(t *testing.T) {
	desktop := newDesktop(t)
	folder := filepath.Join(desktop.dir, "data", "keyrings")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "login.keyring"), []byte("[keyring]\ndisplay-name=Login\nctime=0\nmtime=0\nlock-on-idle=false\nlock-after=false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	desktop.login("")
	k, e := NewKeyring(NewDisk(t.TempDir())), testEntry()
	mustSave(t, k, e)
	mustLoad(t, k, e)
	desktop.lock()
	mustLoad(t, k, e)
}

func TestKeyringAbsent(t *testing.T) {
	desktop := newKeyringDesktop(t)
	dir := t.TempDir()
	k, e := NewKeyring(NewDisk(dir)), testEntry()
	mustSave(t, k, e)
	began := time.Now()

	stop(desktop.daemon)
	mustAllReason(t, KeyringAbsent, k, e)

	address := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(dir, "missing"))
	mustAllReason(t, KeyringAbsent, k, e)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := files(t, dir); !slices.Equal(got, []string{e.Key.ID() + ".keyring.json"}) {
		t.Errorf("files: %v", got)
	}
	// What was never there costs no question.
	if err := k.Delete(strings.Repeat("0", 64)); err != nil {
		t.Error(err)
	}

	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	desktop.login("password")
	mustLoad(t, k, e)
}

func TestKeyringWithoutCollection(t *testing.T) {
	desktop := newDesktop(t)
	desktop.login("")
	k, e := NewKeyring(NewDisk(t.TempDir())), testEntry()
	mustReason(t, KeyringAbsent, func() error { return k.Save(e) })
}

func TestKeyringTimesOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path) // it takes calls, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+path)
	k := NewKeyring(NewDisk(t.TempDir()))
	mustReason(t, KeyringTimedOut, func() error { return k.Save(testEntry()) })
}

// FuzzDecodeKeyring feeds a file, and a session behind a good checksum, to the
// parser of a keyring's record.
func FuzzDecodeKeyring(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		files := [][]byte{b}
		if sealed, err := seal(json.RawMessage(b)); err == nil {
			files = append(files, sealed)
		}
		for _, file := range files {
			r, err := decodeKeyring(file, testKey().ID())
			if err != nil {
				continue
			}
			if r.Place != placeA && r.Place != placeB || r.Key.ID() != testKey().ID() || r.Token.Pieces <= 0 && r.RefreshToken.Pieces <= 0 {
				t.Fatalf("%q became %+v", b, r)
			}
			again, err := seal(r)
			if err != nil {
				t.Fatalf("decoded, but does not encode: %v", err)
			}
			if _, err := decodeKeyring(again, testKey().ID()); err != nil {
				t.Fatalf("encoded, but does not decode: %v", err)
			}
		}
	})
}
