package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

// inventoryVersion names the form of status -o json. A field may be added to it;
// none is removed or changes its meaning without a new version.
const inventoryVersion = "oidc-device/v1"

// inventory is what status says, and what --all and --prune go by.
type inventory struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Sessions   []sessionState `json:"sessions"`
	Pending    []pendingLogin `json:"pending"`
}

// sessionState is one session, without its tokens. hack/docs/stewardship.md has a line
// for each field.
type sessionState struct {
	ID              string     `json:"id"`
	Issuer          string     `json:"issuer,omitempty"`
	ClientID        string     `json:"clientID,omitempty"`
	Subject         string     `json:"subject,omitempty"`
	Name            string     `json:"name,omitempty"`
	Audience        []string   `json:"audience,omitempty"`
	ScopesRequested []string   `json:"scopesRequested,omitempty"`
	ScopesGranted   []string   `json:"scopesGranted,omitempty"`
	TokenKind       string     `json:"tokenKind,omitempty"`
	ApprovedAt      *time.Time `json:"approvedAt,omitempty"`
	RenewedAt       *time.Time `json:"renewedAt,omitempty"`
	TokenExpiresAt  *time.Time `json:"tokenExpiresAt,omitempty"`
	Renewable       bool       `json:"renewable"`
	RenewableUntil  *time.Time `json:"renewableUntil,omitempty"`
	Storage         string     `json:"storage"`
	Path            string     `json:"path"`
	KubeconfigUsers []string   `json:"kubeconfigUsers,omitempty"`
	Contexts        []string   `json:"contexts,omitempty"`
	Problems        []problem  `json:"problems,omitempty"`

	entry *cache.Entry
	aside bool // it did not parse, and was moved out of the way
	dir   string
	refs  []kubeconfigRef
}

// problem is what is wrong with a session.
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"` // a command to type
}

// Codes of problems.
const (
	problemOrphaned   = "orphaned"   // no kubeconfig names it
	problemExpired    = "expired"    // neither its token nor its renewal is good for anything
	problemBroad      = "over-broad" // it can do more than was asked for
	problemUntrusted  = "untrusted"  // its file is open to others, or not ours
	problemUnreadable = "unreadable" // it does not parse, or its storage cannot be asked
	problemTooOld     = "over-age"   // older than --max-session-age
)

// pendingLogin waits for a person.
type pendingLogin struct {
	SessionID               string    `json:"sessionID"`
	Issuer                  string    `json:"issuer,omitempty"`
	ClientID                string    `json:"clientID,omitempty"`
	VerificationURI         string    `json:"verificationURI"`
	VerificationURIComplete string    `json:"verificationURIComplete,omitempty"`
	UserCode                string    `json:"userCode"`
	ExpiresAt               time.Time `json:"expiresAt"`
	PID                     int       `json:"pid"`
	Since                   time.Time `json:"since"`
}

// takeInventory looks into the folder that was given, and into those that the
// kubeconfigs name. What can be found comes also with an error.
func takeInventory(dir string) (*inventory, error) {
	all, kubeErr := readKubeconfigs(kubeconfigFiles())
	for _, u := range all.users {
		if u.err != nil {
			kubeErr = errors.Join(kubeErr, fmt.Errorf("the arguments of user %s in %s make no sense (kubectl oidc-device doctor says why)", flow.Clean(u.name, 100), u.file))
		}
	}
	refs := all.refs()
	// A KUBECONFIG that is set for one command must not make orphans of what the
	// usual kubeconfig names.
	named := map[string]bool{}
	if usual, err := readKubeconfigs(defaultKubeconfig()); err == nil {
		for _, ref := range append(usual.refs(), refs...) {
			named[ref.id] = named[ref.id] || ref.options.storage != "none"
		}
	} else {
		kubeErr = errors.Join(kubeErr, err)
	}
	dirs := []string{canonical(dir)}
	for i := range refs {
		refs[i].options.cacheDir = canonical(refs[i].options.cacheDir)
		if !slices.Contains(dirs, refs[i].options.cacheDir) {
			dirs = append(dirs, refs[i].options.cacheDir)
		}
	}
	policies, err := readPolicies(policyFiles())
	kubeErr = errors.Join(kubeErr, err)
	inv := &inventory{APIVersion: inventoryVersion, Kind: "SessionList", Sessions: []sessionState{}, Pending: []pendingLogin{}}
	for _, dir := range dirs {
		disk := cache.NewDisk(dir)
		ids, err := disk.List()
		aside, aerr := disk.Aside()
		if err = errors.Join(err, aerr); err != nil {
			// One folder that cannot be read does not hide the others.
			kubeErr = errors.Join(kubeErr, err)
			continue
		}
		for _, path := range aside {
			id, _, _ := strings.Cut(filepath.Base(path), ".")
			inv.Sessions = append(inv.Sessions, sessionState{ID: id, Storage: "disk", Path: path, aside: true, Problems: []problem{{
				Code: problemUnreadable, Fix: "rm " + shellQuote(path),
				Message: path + " did not parse and was set aside; if it holds a token, that was not revoked",
			}}})
		}
		states := make([]sessionState, len(ids))
		each(len(ids), func(i int) { states[i] = stateOf(disk, dir, ids[i], refs, policies, kubeErr != nil || named[ids[i]]) })
		inv.Sessions = append(inv.Sessions, states...)
		pending, err := pendingIn(disk)
		kubeErr = errors.Join(kubeErr, err)
		inv.Pending = append(inv.Pending, pending...)
	}
	slices.SortStableFunc(inv.Sessions, func(a, b sessionState) int {
		return strings.Compare(a.Issuer+" "+a.ClientID+" "+a.ID, b.Issuer+" "+b.ClientID+" "+b.ID)
	})
	return inv, kubeErr
}

// canonical makes one name of the many that a folder can have.
func canonical(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return dir
}

// each calls f for 0 to n-1, on a few processors.
func each(n int, f func(int)) {
	const workers = 4
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	running.Wait()
}

func stateOf(disk *cache.Disk, dir, id string, refs []kubeconfigRef, policies []policy, named bool) sessionState {
	state := sessionState{ID: id, Storage: "disk", Path: disk.Path(id), dir: dir}
	var maxAge, maxLife time.Duration // the least that anybody allows; 0 for any
	least := func(d *time.Duration, other time.Duration) {
		if other > 0 && (*d == 0 || other < *d) {
			*d = other
		}
	}
	for _, p := range policies {
		least(&maxAge, p.MaxSessionAge.Duration)
		least(&maxLife, p.MaxTokenLifetime.Duration)
	}
	for _, ref := range refs {
		if ref.id == id && ref.options.cacheDir == dir {
			state.refs = append(state.refs, ref)
			state.KubeconfigUsers = append(state.KubeconfigUsers, ref.user)
			state.Contexts = append(state.Contexts, ref.contexts...)
			least(&maxAge, ref.options.maxSessionAge)
			least(&maxLife, ref.options.maxTokenLifetime)
		}
	}
	entry, err := disk.Load(id)
	renewable := err == nil && !entry.RefreshToken.Empty()
	if errors.Is(err, cache.ErrNotFound) {
		// The keyring itself is not asked: it may be locked.
		keyring := cache.NewKeyring(disk)
		entry, renewable, err = keyring.Describe(id)
		state.Storage, state.Path = "keyring", keyring.Path(id)
	}
	wrong := func(code, fix, format string, args ...any) {
		state.Problems = append(state.Problems, problem{Code: code, Message: fmt.Sprintf(format, args...), Fix: fix})
	}
	var untrusted *cache.UntrustedError
	switch {
	case errors.As(err, &untrusted):
		wrong(problemUntrusted, untrusted.Mend, "%v", err)
		return state
	case err != nil:
		wrong(problemUnreadable, "", "%v", err)
		return state
	}
	state.entry = entry
	state.Issuer, state.ClientID = entry.Key.Issuer, entry.Key.ClientID
	// What came from the provider was cleaned before it was stored, but the
	// file is not signed.
	state.Subject, state.Name = flow.Clean(entry.Subject, 300), flow.Clean(entry.Name, 100)
	state.Audience, state.ScopesRequested, state.ScopesGranted = entry.Audience, entry.Key.Scopes, entry.ScopesGranted
	state.TokenKind = "id_token"
	if entry.Key.AccessToken {
		state.TokenKind = "access_token"
	}
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	state.ApprovedAt, state.RenewedAt, state.TokenExpiresAt = at(entry.ApprovedAt), at(entry.RenewedAt), at(entry.TokenExpiresAt)
	until := entry.RefreshExpiresAt
	if maxAge > 0 {
		if end := entry.ApprovedAt.Add(maxAge); until.IsZero() || end.Before(until) {
			until = end
		}
	}
	now := time.Now()
	tooOld := maxAge > 0 && now.Sub(entry.ApprovedAt) > maxAge
	state.Renewable = renewable && (until.IsZero() || now.Before(until))
	if renewable {
		state.RenewableUntil = at(until)
	}
	switch {
	case tooOld:
		wrong(problemTooOld, "", "it is older than %s, the greatest age of a session here", maxAge)
	case !state.Renewable && !now.Before(entry.TokenExpiresAt):
		wrong(problemExpired, "", "its token has expired, and it cannot be renewed")
	}
	switch {
	case named:
	case len(state.refs) > 0:
		wrong(problemOrphaned, "", "the kubeconfig that names it keeps nothing: --token-cache-storage=none")
	default:
		wrong(problemOrphaned, "", "no kubeconfig names it")
	}
	for _, b := range broader(entry, maxLife) {
		wrong(problemBroad, "", "%s", b)
	}
	return state
}

// pendingIn finds the logins that wait for a person: their holders are alive.
func pendingIn(disk *cache.Disk) ([]pendingLogin, error) {
	var pending []pendingLogin
	ids, err := disk.Locks()
	for _, id := range ids {
		n := disk.Notes(id)
		if n.Prompt == nil || !time.Now().Before(n.Prompt.ExpiresAt) || !safe(n.Prompt) || !disk.Locked(id) {
			continue
		}
		pending = append(pending, pendingLogin{
			SessionID: id, Issuer: flow.Clean(n.Prompt.Issuer, 300), ClientID: flow.Clean(n.Prompt.ClientID, 300),
			VerificationURI: n.Prompt.VerificationURI, VerificationURIComplete: n.Prompt.VerificationURIComplete,
			UserCode: n.Prompt.UserCode, ExpiresAt: n.Prompt.ExpiresAt.UTC(), PID: n.Holder.PID, Since: n.Holder.Since.UTC(),
		})
	}
	return pending, err
}

func hasProblem(s sessionState, codes ...string) bool {
	return slices.ContainsFunc(s.Problems, func(p problem) bool { return slices.Contains(codes, p.Code) })
}

// optionsOf are the options with which a session can be ended: those of the
// kubeconfig that names it, which know its certificates and its secret, else
// what its record says, on top of what was given.
func (s *sessionState) optionsOf(given options) *options {
	if len(s.refs) > 0 {
		o := *s.refs[0].options
		o.overlay(&given)
		return &o
	}
	o := given
	// What a variable says of a secret or an endpoint is for one client of one
	// issuer, and must not be sent to another.
	o.secret, o.secretFile, o.endpoints = secret.String{}, "", flow.Endpoints{}
	o.cacheDir, o.storage = s.dir, s.Storage
	if s.entry != nil {
		key := s.entry.Key
		o.extraScopes, o.extraParams, o.offlineAccess = nil, key.ExtraParams, flow.Never
		for _, scope := range key.Scopes {
			switch scope {
			case "openid":
			case "offline_access":
				o.offlineAccess = flow.Always
			default:
				o.extraScopes = append(o.extraScopes, scope)
			}
		}
		o.issuer, o.clientID, o.useAccessToken = key.Issuer, key.ClientID, key.AccessToken
		reach := s.entry.Reach
		if o.caFile == "" && o.caData == "" && !o.insecureSkipTLSVerify {
			o.caFile, o.caData = reach.CAFile, reach.CAData
		}
		o.secretFile, o.endpoints.Revocation = reach.ClientSecretFile, reach.Revocation
		o.endpoints.DeviceAuthorization, o.endpoints.Token, o.endpoints.JWKS = key.Endpoints["device_authorization"], key.Endpoints["token"], key.Endpoints["jwks"]
	}
	return &o
}
