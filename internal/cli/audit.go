package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/adrg/xdg"
	"github.com/gofrs/flock"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// Actions of the trail.
const (
	loginStart     = "login-start"
	loginApproved  = "login-approved"
	loginDenied    = "login-denied"
	loginExpired   = "login-expired"
	loginFailed    = "login-failed"
	tokenRenewed   = "token-renewed"
	renewalRefused = "renewal-refused"
	tokenRefused   = "token-refused"
	sessionRevoked = "session-revoked"
	sessionDeleted = "session-deleted"
)

// auditRecord is one line of the trail. Its fields are those of the Elastic
// Common Schema 8.11 (https://www.elastic.co/docs/reference/ecs); what that has
// no field for is under oauth, kubernetes and ci. It holds no secret.
type auditRecord struct {
	Time time.Time `json:"@timestamp"`
	ECS  struct {
		Version string `json:"version"`
	} `json:"ecs"`
	Event struct {
		Kind     string   `json:"kind"`
		Category []string `json:"category"`
		Type     []string `json:"type"`
		Action   string   `json:"action"`
		Outcome  string   `json:"outcome"`
		Reason   string   `json:"reason,omitempty"`
	} `json:"event"`
	User struct {
		Name string `json:"name,omitempty"` // of this machine
		ID   string `json:"id,omitempty"`
	} `json:"user"`
	Host struct {
		Name string `json:"name,omitempty"`
	} `json:"host"`
	Process struct {
		PID    int `json:"pid"`
		Parent struct {
			PID  int    `json:"pid"`
			Name string `json:"name,omitempty"`
		} `json:"parent"`
	} `json:"process"`
	OAuth struct {
		Issuer   string   `json:"issuer"`
		ClientID string   `json:"client_id"`
		Subject  string   `json:"subject,omitempty"`
		Audience []string `json:"audience,omitempty"`
		Scope    struct {
			Requested []string `json:"requested,omitempty"`
			Granted   []string `json:"granted,omitempty"`
		} `json:"scope"`
		Token struct {
			Hash    string     `json:"hash,omitempty"` // SHA-256, hexadecimal
			Expires *time.Time `json:"expires,omitempty"`
		} `json:"token"`
		Session struct {
			ID string `json:"id"`
		} `json:"session"`
		Storage string `json:"storage"`
		Revoked string `json:"revoked,omitempty"` // refresh_token, access_token
	} `json:"oauth"`
	Kubernetes struct {
		Context string `json:"context,omitempty"`
	} `json:"kubernetes"`
	CI *ciJob `json:"ci,omitempty"`
}

// Bounds of the trail: one file that is written to, and a few before it.
const (
	trailSize = 4 << 20
	trailKept = 4
)

// trail is where the records of one run go.
type trail struct {
	path     string // empty: nowhere
	required bool
	ui       *ui
	warned   bool
}

func defaultTrail() string {
	return filepath.Join(xdg.StateHome, "kubectl-oidc_device", "audit.jsonl")
}

// trailError: there is no trail where one is required.
type trailError struct{ err error }

func (e *trailError) Error() string {
	return fmt.Sprintf("the audit log cannot be written (%v), and it is required", e.err)
}

// ready fails if a trail is required and cannot be had: whatever would have to
// be recorded is then not begun.
func (t *trail) ready() error {
	if !t.required {
		return nil
	}
	if t.path == "" {
		return &trailError{errors.New("--audit-log=none")}
	}
	f, err := t.open()
	if err != nil {
		return &trailError{err}
	}
	f.Close()
	return nil
}

// write appends a record. An error, which is only given where the trail is
// required, means that the action must not have its effect.
func (t *trail) write(r *auditRecord) error {
	if t.path == "" {
		return t.ready()
	}
	line, err := json.Marshal(r)
	if err == nil {
		err = t.append(append(line, '\n'))
	}
	switch {
	case err == nil:
		return nil
	case t.required:
		return &trailError{err}
	case !t.warned:
		t.warned = true
		t.ui.warn("the audit log cannot be written: %v", err)
	}
	return nil
}

// append writes a line in one go, under a lock for the sake of rotation alone:
// where it cannot be had the line is appended all the same.
func (t *trail) append(line []byte) error {
	if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return err
	}
	locked := false
	lock := flock.New(t.path+".lock", flock.SetFlag(os.O_RDWR))
	if f, _, err := openRegular(t.path+".lock", os.O_CREATE|os.O_RDWR|noFollow); err == nil {
		f.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		locked, _ = lock.TryLockContext(ctx, 2*time.Millisecond+rand.N(4*time.Millisecond)) // see above
	}
	if locked {
		defer lock.Unlock()
	}
	f, err := t.open()
	if err != nil {
		return err
	}
	defer func() { f.Close() }() // the write has told
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if locked && info.Size() > 0 && info.Size()+int64(len(line)) > trailSize {
		f.Close() // Windows renames no open file
		if err := t.rotate(); err != nil {
			return err
		}
		if f, err = t.open(); err != nil {
			return err
		}
	} else if end := make([]byte, 1); info.Size() > 0 {
		// A line that a power failure tore stays alone in its line.
		if _, err := f.ReadAt(end, info.Size()-1); err == nil && end[0] != '\n' && locked {
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = f.Write(line)
	return err
}

// open refuses what is no regular file: a link could lead anywhere, and a pipe
// would hang.
func (t *trail) open() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return nil, err
	}
	f, info, err := openRegular(t.path, os.O_APPEND|os.O_CREATE|os.O_RDWR|noFollow)
	if err != nil {
		return nil, err
	}
	// Whom the owner lets read it is the owner's choice; what others could
	// write proves nothing.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		t.ui.warn("the audit log %s could be written by others (mode %04o): look at what is in it", t.path, info.Mode().Perm())
		if err := f.Chmod(0o600); err != nil {
			t.ui.warn("and its mode cannot be changed: %v", err)
		}
	}
	return f, nil
}

// rotate makes room: audit.jsonl becomes audit.jsonl.1, and so on.
func (t *trail) rotate() error {
	for n := trailKept; n > 0; n-- {
		from := t.path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", t.path, n-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", t.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// record begins a record about this session. e and t may be nil.
func (s *session) record(action string, e *cache.Entry) *auditRecord {
	r := &auditRecord{Time: time.Now().UTC()}
	r.ECS.Version = "8.11.0"
	r.Event.Kind, r.Event.Category, r.Event.Action = "event", []string{"authentication"}, action
	r.Event.Type, r.Event.Outcome = []string{"info"}, "success"
	switch action {
	case loginStart:
		r.Event.Type, r.Event.Outcome = []string{"start"}, "unknown"
	case loginDenied, loginExpired, loginFailed, renewalRefused, tokenRefused:
		r.Event.Outcome = "failure"
	case sessionRevoked, sessionDeleted:
		r.Event.Type = []string{"end"}
	}
	// What cannot be found out is left out.
	if u, err := user.Current(); err == nil {
		r.User.Name, r.User.ID = u.Username, u.Uid
	}
	r.Host.Name, _ = os.Hostname()
	r.Process.PID, r.Process.Parent.PID = os.Getpid(), os.Getppid()
	r.Process.Parent.Name = flow.Clean(parentName(), 100)
	o := &r.OAuth
	o.Issuer, o.ClientID = s.issuer, s.clientID
	o.Scope.Requested, o.Session.ID, o.Storage = s.key().Scopes, s.id, s.keptIn()
	if s.clientOfFlow != nil {
		o.Scope.Requested = s.clientOfFlow.Scopes()
	}
	if e != nil {
		o.Subject, o.Audience, o.Scope.Granted = e.Subject, e.Audience, e.ScopesGranted
		if !e.Token.Empty() {
			sum := sha256.Sum256([]byte(e.Token.Reveal()))
			expires := e.TokenExpiresAt.UTC()
			o.Token.Hash, o.Token.Expires = hex.EncodeToString(sum[:]), &expires
		}
	}
	r.Kubernetes.Context = s.kubeContext()
	r.CI = detectCI(os.Getenv).job(os.Getenv)
	return r
}

// audit writes a record about what happened to the session. err is why it
// failed, if it did.
func (s *session) audit(action string, e *cache.Entry, err error) error {
	if s.trail.path == "" && !s.trail.required {
		return nil
	}
	return s.put(s.record(action, e), err)
}

func (s *session) put(r *auditRecord, err error) error {
	if err != nil {
		r.Event.Outcome, r.Event.Reason = "failure", err.Error()
	}
	return s.trail.write(r)
}

// kubeContext is the context of the kubeconfig that this session is for: the
// one that was named, else the only one.
func (s *session) kubeContext() string {
	if s.contextName != "" {
		return s.contextName
	}
	refs, err := kubeconfigRefs()
	if err != nil {
		return ""
	}
	var contexts []string
	for _, ref := range refs {
		if ref.id == s.id {
			contexts = append(contexts, ref.contexts...)
		}
	}
	slices.Sort(contexts)
	if contexts = slices.Compact(contexts); len(contexts) != 1 {
		return ""
	}
	return contexts[0]
}
