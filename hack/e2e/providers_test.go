package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// clients are those registered at both providers, one for each test, so that
// sessions and counts of tests that run at once do not mix. The numbers are
// the seconds that the first ID token lasts, and a renewed one.
var clients = map[string][2]int{
	"kube":    {300, 300},
	"flags":   {300, 300},
	"expiry":  {6, 300},
	"verbose": {6, 300},
	"storm":   {3, 300},
	"logout":  {300, 300},
	"denied":  {300, 300},
	"cold":    {300, 300},
	"slow":    {300, 300},
	"browser": {300, 300},
	"refused": {300, 300},
	"rotated": {300, 300},
	"another": {300, 300},
	"setup":   {300, 300},
	"kubectl": {300, 300},
	"doctor":  {300, 300},
	elsewhere: {300, 300},
}

// elsewhere is the client whose tokens the API server does not accept.
const elsewhere = "elsewhere"

// provider is an OpenID provider that this project did not write, behind TLS.
type provider struct {
	*front
	name   string
	user   string // who logs in
	groups []string
	roots  *x509.CertPool
	grant  func(group string) error // gives the person one more group
	rotate func()                   // takes another signing key; zitadel alone
	close  func()
}

func (p *provider) client() *http.Client {
	return &http.Client{Transport: trusting(p.roots), Timeout: 20 * time.Second}
}

func trusting(roots *x509.CertPool) *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
}

// nodeFolder makes a folder with the scripts of node/ and the packages that
// they need. The packages are installed once, outside the tree.
func nodeFolder(ctx context.Context, root, dir string) (string, error) {
	source := filepath.Join(root, "hack", "e2e", "node")
	lock, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		return "", err
	}
	cache, err := kube.CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	installed := filepath.Join(cache, "node-"+hex.EncodeToString(sum[:16]))
	if _, err := os.Stat(installed); err != nil {
		if err := npmCI(ctx, source, cache, installed); err != nil {
			return "", err
		}
	}
	folder := filepath.Join(dir, "node")
	if err := copyFiles(source, folder, "provider.mjs", "approve.mjs", "package.json"); err != nil {
		return "", err
	}
	return folder, os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(folder, "node_modules"))
}

func npmCI(ctx context.Context, source, cache, installed string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	if err := copyFiles(source, unfinished, "package.json", "package-lock.json", ".npmrc"); err != nil {
		return err
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts")
	cmd.Dir = unfinished
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	fmt.Fprintf(os.Stderr, "e2e: npm ci took %s\n", time.Since(begin).Round(time.Second))
	if err := os.Rename(unfinished, installed); err != nil {
		if _, missing := os.Stat(installed); missing != nil {
			return err
		}
	}
	return nil
}

func copyFiles(from, to string, names ...string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func startNode(ctx context.Context, ca *kube.CA, folder string) (*provider, error) {
	var (
		stop  func()
		close = func() {
			if stop != nil {
				stop()
			}
		}
	)
	f, err := startFront(ca, func(issuer string) (http.Handler, error) {
		port, kill, err := runProvider(ctx, folder, issuer)
		if err != nil {
			return nil, err
		}
		stop = kill
		target := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
		return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		}}, nil
	})
	if err != nil {
		close()
		return nil, err
	}
	return &provider{
		front: f, name: "node oidc-provider", user: "alice", groups: []string{"developers", "on-call"},
		grant: func(group string) error {
			return os.WriteFile(filepath.Join(folder, "granted"), []byte(group), 0o600)
		},
		roots: pool(ca.PEM), close: func() { f.server.Close(); close() },
	}, nil
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// runProvider returns when provider.mjs listens.
func runProvider(ctx context.Context, folder, issuer string) (port int, kill func(), err error) {
	lifetimes, err := json.Marshal(clients)
	if err != nil {
		return 0, nil, err
	}
	stderr, err := os.Create(filepath.Join(folder, "provider.log"))
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command("node", "provider.mjs")
	cmd.Dir, cmd.Stderr = folder, stderr
	cmd.Env = append(os.Environ(), "ISSUER="+issuer, "CLIENTS="+string(lifetimes))
	kube.DieWithParent(cmd)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	started, done := make(chan error, 1), make(chan struct{})
	lines := make(chan string, 1)
	go func() {
		defer close(done)
		defer stderr.Close()
		runtime.LockOSThread() // see kube.DieWithParent
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(stdout).ReadString('\n') // what is missing is seen below
		lines <- line
		io.Copy(io.Discard, stdout) // until the end of the process
		cmd.Wait()                  // killed: it has nothing to say
	}()
	if err := <-started; err != nil {
		return 0, nil, err
	}
	kill = func() { cmd.Process.Kill(); <-done }
	var line string
	select {
	case line = <-lines:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(20 * time.Second):
		err = errors.New("it does not listen")
	}
	var listening struct{ Port int }
	if err == nil {
		err = json.Unmarshal([]byte(line), &listening)
	}
	if err != nil {
		kill()
		said, _ := os.ReadFile(stderr.Name()) // only to be shown
		return 0, nil, fmt.Errorf("node provider.mjs: %w\n%s", err, said)
	}
	return listening.Port, kill, nil
}

// startZitadel runs zitadel/oidc's example provider in this process.
func startZitadel(ca *kube.CA) (*provider, error) {
	p := &provider{name: "zitadel oidc", user: "bob", groups: []string{"developers", "operators"}, roots: pool(ca.PEM)}
	var err error
	storage := newZitadelStorage(p.groups)
	p.grant = func(group string) error {
		storage.mu.Lock()
		defer storage.mu.Unlock()
		storage.groups = append(slices.Clone(storage.groups), group)
		return nil
	}
	p.rotate = func() {
		storage.mu.Lock()
		defer storage.mu.Unlock()
		storage.keys = newStorage()
	}
	p.front, err = startFront(ca, func(issuer string) (http.Handler, error) {
		return exampleop.SetupServer(issuer, storage, slog.New(slog.DiscardHandler), false), nil
	})
	if err != nil {
		return nil, err
	}
	p.close = p.server.Close
	return p, nil
}

// zitadelStorage is the example's, which forgets the client of a device grant,
// so that its refresh token is no one's, and lets a device code be used again.
type zitadelStorage struct {
	*storage.Storage
	groups []string

	mu    sync.Mutex
	keys  *storage.Storage // whose signing key is used
	used  map[*op.DeviceAuthorizationState]bool
	polls map[string]time.Time // device code → last poll
	slow  bool                 // slow_down was said, once, to the client "slow"
}

func newStorage() *storage.Storage {
	registered := map[string]*storage.Client{}
	for id := range clients {
		registered[id] = storage.NativeClient(id)
	}
	return storage.NewStorageWithClients(users{}, registered)
}

func newZitadelStorage(groups []string) *zitadelStorage {
	s := newStorage()
	return &zitadelStorage{
		Storage: s, keys: s, groups: groups,
		used: map[*op.DeviceAuthorizationState]bool{}, polls: map[string]time.Time{},
	}
}

// users has bob alone.
type users struct{}

var bob = &storage.User{ID: "bob", Username: "bob", Password: "any"}

func (users) ExampleClientID() string { return "none" }

func (users) GetUserByID(id string) *storage.User {
	if id == bob.ID {
		return bob
	}
	return nil
}

func (u users) GetUserByUsername(name string) *storage.User { return u.GetUserByID(name) }

// zitadelClient is a native client that may use the device grant.
type zitadelClient struct {
	op.Client
	lifetime time.Duration
}

func (zitadelClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
}

func (c zitadelClient) IDTokenLifetime() time.Duration { return c.lifetime }

func (s *zitadelStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	lifetimes := clients[id]
	seconds := lifetimes[0]
	if grantType(ctx) == "refresh_token" {
		seconds = lifetimes[1]
	}
	return zitadelClient{c, time.Duration(seconds) * time.Second}, nil
}

func (s *zitadelStorage) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	if state, ok := request.(*op.DeviceAuthorizationState); ok {
		s.mu.Lock()
		s.used[state] = true
		s.mu.Unlock()
		request = &storage.AuthRequest{ApplicationID: state.ClientID, UserID: state.Subject, Scopes: state.Scopes}
	}
	return s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
}

// GetDeviceAuthorizatonState makes the provider say slow_down, which it does
// on this error, to who polls more often than it asked for, and once to the
// client "slow".
func (s *zitadelStorage) GetDeviceAuthorizatonState(ctx context.Context, client, code string) (*op.DeviceAuthorizationState, error) {
	state, err := s.Storage.GetDeviceAuthorizatonState(ctx, client, code)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, polled := s.polls[code]
	s.polls[code] = time.Now()
	// The interval is 5 s; the network may eat a little of it.
	if polled && time.Since(last) < 4900*time.Millisecond {
		return nil, context.DeadlineExceeded
	}
	if client == "slow" && !s.slow {
		s.slow = true
		return nil, context.DeadlineExceeded
	}
	if s.used[state] {
		return nil, errors.New("the device code was used")
	}
	return state, nil
}

func (s *zitadelStorage) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	s.mu.Lock()
	info.AppendClaims("groups", s.groups)
	s.mu.Unlock()
	return s.Storage.SetUserinfoFromRequest(ctx, info, request, scopes)
}

func (s *zitadelStorage) SigningKey(ctx context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys.SigningKey(ctx)
}

func (s *zitadelStorage) KeySet(ctx context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys.KeySet(ctx)
}

// audiences are the clients whose tokens the API server accepts.
func audiences() (ids []string) {
	for id := range clients {
		if id != elsewhere {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, strings.Compare)
	return ids
}
