package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// session is one run of a command about one session.
type session struct {
	*options
	id      string
	store   cache.Storage
	other   cache.Storage // where the session may have been kept before
	disk    *cache.Disk   // has the locks; nil where nothing is kept
	ui      *ui
	trail   *trail
	system  ciSystem // of --ci; zero for none
	started time.Time
	// client names the process that runs us as its plugin; nil when a person
	// or a script does. It tells one kubectl, which may run the plugin five
	// times after a failure, from the next.
	client func() string
	fresh  bool // login: the cached token is not wanted
	// contextName is the kubeconfig's context that the person named, if any.
	contextName string
	waited      bool // for a login that another process ran
	// refused is a token that is good, but that the client seems to have seen
	// refused.
	refused *cache.Entry

	clientOfFlow *flow.Client // see flow
}

func newSession(o *options, ui *ui) *session {
	s := &session{options: o, id: o.key().ID(), ui: ui, started: time.Now(), store: cache.None{}, other: cache.None{}}
	s.trail = &trail{path: o.auditLog, required: o.auditRequired, ui: ui}
	if o.auditLog == "none" || o.storage == "none" && !o.auditRequired && !o.gave("audit-log") {
		s.trail.path = "" // what keeps nothing leaves no trace by itself either
	}
	if s.system = chooseCI(o.ci, os.Getenv); s.system.name != "" {
		// Some give their jobs a terminal; no person is at it.
		ui.screen = screen{}
	}
	switch o.storage {
	case "none":
	case "keyring":
		s.disk = cache.NewDisk(o.cacheDir)
		s.store, s.other = cache.NewKeyring(s.disk), s.disk
	default:
		s.disk = cache.NewDisk(o.cacheDir)
		s.store, s.other = s.disk, cache.NewKeyring(s.disk)
	}
	return s
}

// keptIn is the --token-cache-storage that the session is in.
func (s *session) keptIn() string {
	switch s.store.(type) {
	case *cache.Disk:
		return "disk"
	case *cache.Keyring:
		return "keyring"
	}
	return "none"
}

// token is the road: a cached token at once, without lock or network; else,
// under the session's lock, one that somebody else renewed meanwhile, one
// that is renewed now, or one from a new login.
func (s *session) token(ctx context.Context) (*cache.Entry, error) {
	entry, err := s.load(false)
	if err != nil || s.usable(entry) && !s.again(entry) {
		return entry, err
	}
	ctx = interruptible(ctx)
	entry, err = s.newToken(ctx)
	if s.refused != nil && err != nil && ctx.Err() == nil {
		s.ui.warn("whoever runs this was given a token that is good until %s, and asks again: the API server may have refused it, and it cannot be renewed now (%v)", clock(s.refused.TokenExpiresAt), err)
		entry, err = s.refused, nil
	}
	if err == nil {
		s.handOut(entry)
	}
	return entry, err
}

func (s *session) newToken(ctx context.Context) (*cache.Entry, error) {
	// A login that another process runs for this one must not take longer
	// than an own one.
	waiting, enough := s.limited(ctx)
	unlock, served, err := s.lock(waiting, s.usable)
	enough()
	if err != nil || served != nil {
		return served, err
	}
	defer unlock()
	entry, err := s.load(true)
	if err != nil || s.usable(entry) {
		return entry, err
	}
	if valid(entry) {
		if why := s.accept(entry, func(string, ...any) {}); why != nil {
			if err := s.audit(tokenRefused, entry, why); err != nil {
				return nil, err
			}
		}
	}
	if !s.fresh {
		renewed, err := s.renew(ctx, entry)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !errors.Is(err, errLoginNeeded) || s.refused != nil {
			return renewed, err
		}
	}
	return s.login(ctx, entry)
}

// again says whether the client process was given this very token before. It
// keeps a token in memory until it expires, so that it has probably seen a 401:
// client-go then runs the plugin again, and says nothing. A minute is the least
// between two renewals for one client that asks at each of its requests.
func (s *session) again(e *cache.Entry) bool {
	if s.handOut(e) && !e.RefreshToken.Empty() {
		s.refused = e
		s.ui.detail("the client was given this token before: renewing it")
	}
	return s.refused != nil
}

// handOut notes who gets the token.
func (s *session) handOut(e *cache.Entry) (again bool) {
	return s.client != nil && s.disk != nil && s.disk.HandOut(s.id, s.client(), e.TokenIssuedAt, time.Minute)
}

var (
	errLoginNeeded = errors.New("a login is needed")
	errTimeout     = errors.New("the login took longer than --authentication-timeout")
)

// load gives nil for a session that is not there. Where the cache cannot be
// read at all the program goes on without it. A file that does not parse is set
// aside under the lock alone, lest a good one that has just replaced it be.
func (s *session) load(locked bool) (*cache.Entry, error) {
	entry, err := s.store.Load(s.id)
	if locked && errors.Is(err, cache.ErrNotFound) {
		entry, err = s.move(err)
	}
	var unusable *cache.KeyringError
	var untrusted *cache.UntrustedError
	var corrupt *cache.CorruptError
	switch {
	case err == nil:
		return entry, nil
	case errors.As(err, &untrusted):
		return nil, err
	case errors.As(err, &unusable):
		// Neither a login nor another storage would be what was asked for.
		return nil, err
	case errors.As(err, &corrupt) && !locked:
	case errors.As(err, &corrupt):
		aside, aerr := s.store.SetAside(s.id)
		if aerr == nil {
			s.ui.warn("%v; it was set aside as %s", err, aside)
		} else {
			s.ui.warn("%v, and cannot be set aside: %v", err, aerr)
		}
	case !errors.Is(err, cache.ErrNotFound):
		s.ui.warn("the session cannot be read: %v", err)
	}
	return nil, nil
}

// move brings a session here that was kept in the other storage: another
// --token-cache-storage is no reason for a new login.
func (s *session) move(notFound error) (*cache.Entry, error) {
	err := cache.Move(s.id, s.other, s.store)
	switch {
	case err == nil:
		s.ui.detail("the session was moved to where --token-cache-storage=%s keeps it", s.storage)
		return s.store.Load(s.id)
	case !errors.Is(err, cache.ErrNotFound):
		s.ui.warn("the session cannot be moved to where --token-cache-storage=%s keeps it: %v", s.storage, err)
	}
	return nil, notFound
}

// usable says whether a token can be handed out without trying to renew it.
func (s *session) usable(e *cache.Entry) bool {
	if e == nil || e.Token.Empty() || time.Until(e.TokenExpiresAt) < s.slack(e) || s.forbidden(e) {
		return false
	}
	switch {
	case e.TokenIssuedAt.After(time.Now().Add(time.Minute)):
		return false // a clock was set back: how long it lasts is anybody's guess
	// What came while this process waited is as new as can be wanted.
	case s.fresh:
		return e.ApprovedAt.After(s.started)
	case s.forceRefresh:
		return e.TokenIssuedAt.After(s.started)
	case s.refused != nil:
		return e.TokenIssuedAt.After(s.refused.TokenIssuedAt)
	}
	return true
}

// valid says whether a token is good at all.
func valid(e *cache.Entry) bool {
	return e != nil && !e.Token.Empty() && time.Now().Before(e.TokenExpiresAt)
}

// slack is --min-validity, but no more than half of the token's lifetime:
// tokens of a minute would otherwise be renewed at each call.
func (s *session) slack(e *cache.Entry) time.Duration {
	return min(s.minValidity, max(e.TokenExpiresAt.Sub(e.TokenIssuedAt)/2, 0))
}

// comeBack is when a client should ask again.
func (s *session) comeBack(e *cache.Entry) time.Time {
	at := e.TokenExpiresAt.Add(-s.slack(e))
	if !at.After(time.Now()) {
		// Served although it could not be renewed: a client that came back at
		// every request would not make the provider well.
		return e.TokenExpiresAt
	}
	return at
}

// lock waits for the session's lock and shows what its holder waits for. As
// soon as the session is one that enough accepts, it is given back in place of
// the lock.
func (s *session) lock(ctx context.Context, enough func(*cache.Entry) bool) (unlock func(), served *cache.Entry, err error) {
	if s.disk == nil {
		return func() {}, nil, nil
	}
	errServed := errors.New("somebody else renewed the session")
	var stuck *stuckError
	var overdue time.Time
	errPending := fmt.Errorf("%w, and another process is waiting for its approval", errLoginNeeded)
	var untrusted *cache.UntrustedError
	shown := ""
	unlock, err = s.disk.Lock(ctx, s.id, func(n cache.Notes) error {
		e, err := s.store.Load(s.id)
		if err == nil && enough(e) {
			served = e
			return errServed
		}
		// A holder that was stopped, as by Ctrl-Z at a prompt, keeps its lock.
		// How long it is late is measured by the clock that sleeps with the
		// machine: after a sleep the holder shall have its time to end.
		switch limit := holderLimit(n); {
		case limit.IsZero() || time.Now().Before(limit):
			overdue = time.Time{}
		case overdue.IsZero():
			overdue = time.Now()
		case time.Since(overdue) > holderGrace:
			return &stuckError{pid: n.Holder.PID, since: n.Holder.Since}
		}
		switch {
		case n.Prompt != nil && time.Now().Before(n.Prompt.ExpiresAt) && safe(n.Prompt):
			if s.options.prompt == "never" || s.refused != nil {
				return errPending
			}
			if err == nil && valid(e) && !s.fresh && !s.forceRefresh && !s.forbidden(e) {
				s.ui.warn("process %d is waiting for the approval of a new login; the token that is there is good until %s", n.Holder.PID, clock(e.TokenExpiresAt))
				served = e
				return errServed
			}
			s.waited = true
			if shown != n.Prompt.UserCode {
				shown = n.Prompt.UserCode
				s.ui.say("process %d is waiting for the approval of this same login", n.Holder.PID)
				s.ui.prompt(s.options, *n.Prompt)
			}
			s.ui.countdown(n.Prompt.ExpiresAt)
		case shown == "" && time.Since(s.started) > 2*time.Second && n.Holder.PID != 0:
			shown = "holder"
			s.ui.say("waiting for process %d, which is renewing this session", n.Holder.PID)
		}
		return nil
	})
	s.ui.endCountdown()
	switch {
	case served != nil:
		return nil, served, nil
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case errors.Is(err, errPending), errors.As(err, &untrusted), errors.As(err, &stuck):
		return nil, nil, err
	case err != nil:
		s.ui.warn("no lock can be had in %s (%v); going on without one", s.cacheDir, err)
		return func() {}, nil, nil
	}
	return unlock, nil, nil
}

// holderGrace is how much longer than it may take a holder is waited for.
const holderGrace = time.Minute

// holderLimit is when a holder should be done: a login with its code, anything
// else within minutes, even where nothing answers.
func holderLimit(n cache.Notes) time.Time {
	switch {
	case n.Holder.PID == 0:
		return time.Time{}
	case n.Prompt != nil:
		return n.Prompt.ExpiresAt
	}
	return n.Holder.Since.Add(5 * time.Minute)
}

// stuckError is a process that has the lock and does not go on.
type stuckError struct {
	pid   int
	since time.Time
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("process %d has had this session since %s and does not go on: it was probably stopped", e.pid, clock(e.since))
}

// safe says whether a prompt out of a lock file may be shown: it was checked
// before it was written, but the file is not signed.
func safe(p *cache.Prompt) bool {
	return flow.CheckURL(p.VerificationURI) == nil && p.UserCode == flow.Clean(p.UserCode, 100) &&
		strings.Join(p.Scopes, " ") == flow.Clean(strings.Join(p.Scopes, " "), 2000) &&
		(p.VerificationURIComplete == "" || flow.CheckURL(p.VerificationURIComplete) == nil)
}

// renew uses the refresh token. errLoginNeeded means that there is none that
// is of use.
func (s *session) renew(ctx context.Context, e *cache.Entry) (*cache.Entry, error) {
	if e == nil || e.RefreshToken.Empty() || s.noRefreshToken {
		return nil, errLoginNeeded
	}
	if s.maxSessionAge > 0 && time.Since(e.ApprovedAt) > s.maxSessionAge {
		s.ui.say("the login is older than --max-session-age=%s", s.maxSessionAge)
		return nil, errLoginNeeded
	}
	if err := s.unfit(e); err != nil {
		s.ui.say("the session cannot be used: %v", err)
		return nil, errLoginNeeded
	}
	if err := s.trouble(); err != nil {
		return s.fallBack(e, err)
	}
	if err := s.trail.ready(); err != nil {
		return nil, err
	}
	// A signal between the provider's answer and the save would lose a rotated
	// refresh token: it is held for a moment.
	ctx, release := held(ctx, 2*time.Second)
	defer release()

	renewed, err := s.refresh(ctx, e)
	if errors.Is(err, flow.ErrRefreshRefused) {
		// Before believing it: where there are no locks, somebody else may
		// have used this refresh token up a moment ago.
		if again, lerr := s.load(true); lerr == nil && again != nil && !again.RefreshToken.Equal(e.RefreshToken) {
			if s.usable(again) {
				return again, nil
			}
			e = again
			renewed, err = s.refresh(ctx, e)
		}
	}
	switch {
	case err == nil:
		return renewed, nil
	case errors.Is(err, flow.ErrRefreshRefused), errors.Is(err, flow.ErrNoIDToken):
		s.ui.say("the session cannot be renewed: %v", err)
		if err := s.audit(renewalRefused, e, err); err != nil {
			return nil, err
		}
		return nil, errLoginNeeded
	case ctx.Err() != nil:
		return nil, err
	}
	s.noteTrouble(err)
	if flow.Temporary(err) {
		return s.fallBack(e, err)
	}
	if refusesToken(err) {
		return nil, err
	}
	var refused *flow.ProviderError
	if errors.As(err, &refused) {
		if err := s.audit(renewalRefused, e, err); err != nil {
			return nil, err
		}
	}
	return s.fallBack(e, err)
}

// fallBack serves a token that could not be renewed, as long as it is good.
func (s *session) fallBack(e *cache.Entry, err error) (*cache.Entry, error) {
	if !valid(e) || s.refused != nil || s.forbidden(e) {
		return nil, err
	}
	s.ui.warn("the session cannot be renewed for now (%v); its token is good until %s", err, clock(e.TokenExpiresAt))
	return e, nil
}

// trouble is what the process failed with for which this one waited. While a
// provider hangs, a hundred processes would otherwise each wait for it in turn.
func (s *session) trouble() error {
	if s.disk == nil || s.fresh {
		return nil
	}
	t := s.disk.Notes(s.id).Trouble
	if t == nil || !t.At.After(s.started) || t.At.After(time.Now()) {
		return nil
	}
	return &joinedError{err: errors.New(flow.Clean(t.Message, 500)), status: t.Status}
}

func (s *session) noteTrouble(err error) {
	var usage *usageError
	if errors.As(err, &usage) {
		return // this process's own flags
	}
	message, _, status := explain(err, nil)
	s.note(func(n *cache.Notes) { n.Trouble = &cache.Trouble{Message: message, Status: status, At: time.Now()} })
}

// renewalTime is the longest that a renewal may take, retries and all.
const renewalTime = 15 * time.Second

// refresh is one renewal, saved.
func (s *session) refresh(ctx context.Context, e *cache.Entry) (*cache.Entry, error) {
	// Not less where a good token is about to end: a request that is given up
	// on its way may cost the refresh token.
	ctx, cancel := context.WithTimeout(ctx, renewalTime)
	defer cancel()
	// Nothing is said between the provider's answer and the save: a reader of
	// stderr that is gone, or a terminal that is stopped, must not come between.
	s.ui.hold()
	defer s.ui.release()
	client, err := s.flow(ctx)
	if err != nil {
		return nil, err
	}
	token, err := client.Refresh(ctx, flow.Previous{RefreshToken: e.RefreshToken, Subject: e.Subject, Audience: e.Audience})
	renewed := *e
	if err != nil {
		if token != nil { // only the refresh token is new
			renewed.RefreshToken = token.RefreshToken()
			s.save(&renewed)
		}
		var verification *flow.VerificationError
		if errors.As(err, &verification) && !flow.Temporary(err) {
			renewed.Token = cache.Secret{} // not that one
			if aerr := s.audit(tokenRefused, &renewed, err); aerr != nil {
				return nil, aerr
			}
		}
		return nil, err
	}
	s.ui.detail("the session was renewed")
	s.take(&renewed, token)
	renewed.RenewedAt = time.Now()
	if renewed.ScopesRequested == nil {
		renewed.ScopesRequested = client.Scopes()
	}
	// Of what is no reason to refuse it, the login has warned.
	if err := s.accept(&renewed, s.ui.detail); err != nil {
		return nil, s.refuse(ctx, client, &renewed, err)
	}
	// First the save, lest a rotated refresh token be lost.
	s.save(&renewed)
	if err := s.audit(tokenRenewed, &renewed, nil); err != nil {
		renewed.Token = cache.Secret{} // what is not recorded, nobody shall have
		s.save(&renewed)
		return nil, err
	}
	return &renewed, nil
}

// refusesToken says whether an error is about a token that came and is not
// good enough, or that must not be handed out unrecorded.
func refusesToken(err error) bool {
	var verification *flow.VerificationError
	var refused *policyError
	var unrecorded *trailError
	return errors.As(err, &verification) || errors.As(err, &refused) || errors.As(err, &unrecorded)
}

// refuse is the end of a token that a policy does not allow: nobody shall have
// it, so that the provider is told, as far as it can be.
func (s *session) refuse(ctx context.Context, client *flow.Client, e *cache.Entry, err error) error {
	s.discard(ctx, client, e)
	if aerr := s.audit(tokenRefused, e, err); aerr != nil {
		return aerr
	}
	return err
}

// discard revokes a session that nobody shall have.
func (s *session) discard(ctx context.Context, client *flow.Client, e *cache.Entry) {
	if e.RefreshToken.Empty() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := client.Revoke(ctx, e.RefreshToken, flow.HintRefreshToken); err != nil {
		s.ui.warn("the session that is not kept could not be revoked: %v", err)
	}
}

// login runs the device grant. e is the session that it will replace, or nil.
func (s *session) login(ctx context.Context, e *cache.Entry) (*cache.Entry, error) {
	if err := s.mayLogin(); err != nil {
		if valid(e) && !s.fresh && !s.forbidden(e) {
			s.ui.warn("%v; the token is good until %s", err, clock(e.TokenExpiresAt))
			return e, nil
		}
		return nil, err
	}
	if err := s.trouble(); err != nil {
		return nil, err
	}
	if err := s.trail.ready(); err != nil {
		return nil, err
	}
	// Before a person is asked for what then could not be kept.
	if keyring, ok := s.store.(*cache.Keyring); ok {
		if err := keyring.Check(); err != nil {
			return nil, err
		}
	}
	s.leftBehind()
	ctx, cancel := s.limited(ctx)
	defer cancel()
	client, auth, err := s.authorize(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.noteTrouble(err)
		}
		_ = s.audit(loginFailed, nil, err) // it has failed anyway
		return nil, err
	}
	prompt := cache.Prompt{
		VerificationURI: auth.VerificationURI, VerificationURIComplete: auth.VerificationURIComplete,
		UserCode: auth.UserCode, ExpiresAt: auth.ExpiresAt, Issuer: s.issuer, ClientID: s.clientID, Scopes: client.Scopes(),
	}
	if err := s.audit(loginStart, nil, nil); err != nil {
		return nil, err
	}
	s.note(func(n *cache.Notes) { n.Prompt = &prompt })
	ended := s.show(ctx, prompt)
	s.openBrowser(prompt)
	stop := s.ui.runCountdown(auth.ExpiresAt)
	token, err := client.Poll(ctx, auth, s.ui.pollTrouble)
	stop()
	ended(err)
	if err != nil {
		s.noteFailure(err)
		_ = s.audit(loginEnd(err), nil, err) // it has failed anyway
		return nil, err
	}
	entry := &cache.Entry{Key: s.key(), ApprovedAt: time.Now(), ScopesRequested: client.Scopes()}
	s.take(entry, token)
	if err := s.accept(entry, s.ui.warn); err != nil {
		s.noteFailure(err)
		return nil, s.refuse(ctx, client, entry, err)
	}
	if err := s.audit(loginApproved, entry, nil); err != nil {
		s.noteFailure(err)
		s.discard(ctx, client, entry)
		return nil, err
	}
	s.save(entry)
	s.note(func(n *cache.Notes) { n.Prompt, n.Failure = nil, nil })
	s.ui.say("signed in as %s; the token is good until %s", whoIs(entry), clock(entry.TokenExpiresAt))
	return entry, nil
}

// leftBehind tells of a session that was kept before --token-cache-storage=none.
func (s *session) leftBehind() {
	if s.storage != "none" {
		return
	}
	disk := cache.NewDisk(s.cacheDir)
	keyring := cache.NewKeyring(disk)
	for _, path := range []string{disk.Path(s.id), keyring.Path(s.id)} {
		if _, err := os.Lstat(path); err == nil {
			s.ui.warn("a session from before --token-cache-storage=none is still in %s; to end it: %s", path, s.commandLine("logout"))
		}
	}
}

func (s *session) authorize(ctx context.Context) (*flow.Client, *flow.Authorization, error) {
	client, err := s.flow(ctx)
	if err != nil {
		return nil, nil, err
	}
	auth, err := client.Authorize(ctx)
	if d := client.ClockDifference(); d != 0 {
		s.ui.warn("%s", clockHint(d))
	}
	return client, auth, err
}

// clockHint names what is wrong with this machine's clock.
func clockHint(providerAhead time.Duration) string {
	where := "behind"
	if providerAhead < 0 {
		where = "ahead of"
	}
	return fmt.Sprintf("this machine's clock is %s %s the provider's", providerAhead.Abs(), where)
}

// limited gives a context for what --authentication-timeout limits.
func (s *session) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if limit := s.authenticationTimeout(); limit > 0 {
		return context.WithTimeoutCause(ctx, limit, errTimeout)
	}
	return context.WithCancel(ctx)
}

// loginEnd is the trail's word for how a login failed.
func loginEnd(err error) string {
	var verification *flow.VerificationError
	switch {
	case errors.Is(err, flow.ErrDenied):
		return loginDenied
	case errors.Is(err, flow.ErrExpired), errors.Is(err, errTimeout):
		return loginExpired
	case errors.As(err, &verification), errors.Is(err, flow.ErrNoIDToken):
		return tokenRefused
	}
	return loginFailed
}

// take copies what a login or a renewal brought.
func (s *session) take(e *cache.Entry, t *flow.Token) {
	e.Token, e.RefreshToken = t.Bearer(), t.RefreshToken()
	e.RefreshExpiresAt = t.RefreshExpiresAt
	if s.noRefreshToken {
		e.RefreshToken, e.RefreshExpiresAt = cache.Secret{}, time.Time{}
	}
	e.TokenIssuedAt, e.TokenExpiresAt = t.IssuedAt, t.ExpiresAt
	e.Subject, e.Name, e.Audience, e.ACR, e.AMR = t.Subject, t.Name, t.Audience, t.ACR, t.AMR
	if t.Scopes != nil {
		e.ScopesGranted = t.Scopes
	}
}

// save warns where it fails: the token is worth handing out all the same.
func (s *session) save(e *cache.Entry) {
	e.Reach = cache.Reach{Revocation: s.endpoints.Revocation, CAFile: absolute(s.caFile), CAData: s.caData, ClientSecretFile: absolute(s.secretFile)}
	if err := s.store.Save(e); err != nil {
		_, hint, _ := explain(err, nil)
		if hint != "" {
			hint = "; " + hint
		}
		s.ui.warn("the session cannot be kept (%v): the next call will need a new login%s", err, hint)
		return
	}
	if err := s.other.Delete(s.id); err != nil {
		s.ui.warn("the session is still where it was kept before: %v", err)
	}
}

// absolute is a path that means the same in any folder.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); path != "" && err == nil {
		return abs
	}
	return path
}

// flow makes the client when it is first needed: that may cost a request.
func (s *session) flow(ctx context.Context) (*flow.Client, error) {
	if s.clientOfFlow != nil {
		return s.clientOfFlow, nil
	}
	config, err := s.flowConfig()
	if err != nil {
		return nil, err
	}
	if s.disk != nil {
		config.Documents = s.disk
	}
	config.Log = s.ui.detail
	s.clientOfFlow, err = flow.New(ctx, config)
	return s.clientOfFlow, err
}

// note leaves a word in the lock file. Where that fails, those who wait do not
// see the prompt, and that is all.
func (s *session) note(change func(*cache.Notes)) {
	if s.disk != nil {
		_ = s.disk.Annotate(s.id, change)
	}
}

// mayLogin says whether a person may be asked now.
func (s *session) mayLogin() error {
	if s.prompt == "never" {
		return fmt.Errorf("%w, and --prompt=never", errLoginNeeded)
	}
	if s.disk == nil {
		return nil
	}
	f := s.disk.Notes(s.id).Failure
	switch {
	case f == nil, f.At.After(time.Now()): // a clock that was set back
		return nil
	case s.waited && f.At.After(s.started):
		return joined(f)
	case s.fresh, s.prompt == "always":
		return nil
	case s.ui.terminal || f.Terminal:
		if s.client != nil && s.client() == f.Client {
			// Terminal or not: one kubectl asks five times.
			return s.coolDown(f.At.Add(time.Minute))
		}
		return nil
	}
	return s.coolDown(f.At.Add(min(time.Minute<<min(max(f.Count-1, 0), 10), 30*time.Minute)))
}

func (s *session) coolDown(until time.Time) error {
	if time.Now().Before(until) {
		return &coolDownError{until: until}
	}
	return nil
}

// Kinds of failure in the notes, and the errors that they stand for.
var failureErrors = map[string]error{
	"denied":  flow.ErrDenied,
	"expired": flow.ErrExpired,
	"timeout": errTimeout,
	"failed":  errors.New("the login failed"),
}

// noteFailure begins the cool-down after a login that a person was asked for
// in vain. One that was interrupted begins none.
func (s *session) noteFailure(err error) {
	var signal *SignalError
	if errors.As(err, &signal) {
		s.note(func(n *cache.Notes) { n.Prompt = nil })
		return
	}
	_, _, status := explain(err, nil)
	kind := "failed"
	for k, e := range failureErrors {
		if errors.Is(err, e) {
			kind = k
		}
	}
	s.note(func(n *cache.Notes) {
		count := 1
		if n.Failure != nil {
			count += n.Failure.Count
		}
		n.Prompt, n.Failure = nil, &cache.Failure{Kind: kind, Status: status, At: time.Now(), Count: count, Terminal: s.ui.terminal}
		if s.client != nil {
			n.Failure.Client = s.client()
		}
	})
}

// joinedError is the end of a login that another process ran for this one too.
type joinedError struct {
	err    error
	status int // the other process's exit status
}

func joined(f *cache.Failure) error {
	err := failureErrors[f.Kind]
	if err == nil {
		err = failureErrors["failed"]
	}
	return &joinedError{err: err, status: f.Status}
}

func (e *joinedError) Error() string { return fmt.Sprintf("%v (in the process that ran it)", e.err) }
func (e *joinedError) Unwrap() error { return e.err }

// coolDownError holds a login back that nobody seems to have asked for.
type coolDownError struct{ until time.Time }

func (e *coolDownError) Error() string {
	return fmt.Sprintf("a login is needed, but the last one was not approved: no other is started before %s", clock(e.until))
}

// held gives a context that ends later than its parent, by the grace.
func held(parent context.Context, grace time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		time.AfterFunc(grace, func() { cancel(context.Cause(parent)) })
	})
	return ctx, func() { stop(); cancel(nil) }
}

func whoIs(e *cache.Entry) string {
	switch {
	case e.Name == "" && e.Subject == "":
		return "a user whom the token does not name"
	case e.Name == "" || e.Name == e.Subject:
		return e.Subject
	}
	return fmt.Sprintf("%s (subject %s)", e.Name, e.Subject)
}

// clock is a time of day for people, with the day where it is not today.
func clock(t time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}
