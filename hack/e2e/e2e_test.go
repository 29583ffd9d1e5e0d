package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

const (
	deviceAuthorization = "device authorization"
	refresh             = "refresh_token"

	// pollInterval is RFC 8628's, which one provider says and the other means
	// by saying nothing.
	pollInterval = 5 * time.Second
	// slack is what kubectl, discovery and two busy cores may take besides.
	slack = 3 * time.Second
)

// whoami checks what kubectl auth whoami -o json answered.
func (r *running) whoami() {
	t, p := r.h.t, r.h.p
	t.Helper()
	var review struct {
		Status struct {
			UserInfo struct {
				Username string
				Groups   []string
			}
		}
	}
	if err := json.Unmarshal(r.stdout.Bytes(), &review); err != nil || r.status() != 0 {
		t.Fatalf("not a review (%v): %s", err, r)
	}
	user := review.Status.UserInfo
	if user.Username != "oidc:"+p.user {
		t.Errorf("the user is %q, not oidc:%s", user.Username, p.user)
	}
	for _, group := range p.groups {
		if !slices.Contains(user.Groups, "oidc:"+group) {
			t.Errorf("the groups are %q, without oidc:%s", user.Groups, group)
		}
	}
}

// silent checks that a program did its work without a login.
func (r *running) silent(logins int) {
	t := r.h.t
	t.Helper()
	if r.status() != 0 || r.asked() {
		t.Errorf("a login, or worse: %s", r)
	}
	if n := r.h.p.count(r.h.client, deviceAuthorization); n != logins {
		t.Errorf("%d device authorizations, not %d", n, logins)
	}
}

// TestLogin logs in once and then uses the session from all sides.
func TestLogin(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "kube")
		k := h.startKubectl("auth", "whoami", "-o", "json")
		after := k.decide(true)
		k.whoami()
		t.Logf("kubectl was done %s after the approval", after.Round(10*time.Millisecond))
		if after > pollInterval+slack {
			t.Errorf("that is more than one polling interval")
		}
		if n := p.count(h.client, deviceAuthorization); n != 1 {
			t.Errorf("%d device authorizations for one login", n)
		}

		t.Run("again", func(t *testing.T) {
			begin := time.Now()
			again := h.kubectl("auth", "whoami", "-o", "json")
			t.Logf("kubectl took %s", time.Since(begin).Round(time.Millisecond))
			again.whoami()
			again.silent(1)
		})
		t.Run("v1beta1", func(t *testing.T) {
			config := h.writeKubeconfig("v1beta1", execVersion("client.authentication.k8s.io/v1beta1"))
			beta := h.kubectl("--kubeconfig="+config, "auth", "whoami", "-o", "json")
			beta.whoami()
			beta.silent(1)
		})
		for _, version := range []string{"1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33"} {
			t.Run("kubectl "+version, func(t *testing.T) {
				old := oldKubectl(version)
				if old == "" {
					t.Skip("this machine has no kubectl of this version")
				}
				// 1.27 asks who it is in a version that servers no longer speak.
				if version == "1.27" {
					h.run(old, "get", "--raw=/api").silent(1)
					return
				}
				k := h.run(old, "auth", "whoami", "-o", "json")
				k.whoami()
				k.silent(1)
			})
		}
	})
}

// oldKubectl finds kubectl.1.27 and its like where some distributions put
// them: beside the kubectl of the PATH.
func oldKubectl(version string) string {
	found, err := exec.LookPath("kubectl")
	if err != nil {
		return ""
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		return ""
	}
	old := filepath.Join(filepath.Dir(found), "kubectl."+version)
	if _, err := os.Stat(old); err != nil {
		return ""
	}
	return old
}

// TestExpiry waits until a token has really expired.
func TestExpiry(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "expiry")
		h.login().whoami()
		before := h.refreshToken()
		time.Sleep(time.Duration(clients[h.client][0])*time.Second + 500*time.Millisecond)

		again := h.kubectl("auth", "whoami", "-o", "json")
		again.whoami()
		again.silent(1)
		if n := p.count(h.client, refresh); n != 1 {
			t.Errorf("%d refresh grants, not one", n)
		}
		if after := h.refreshToken(); before == "" || after == "" || after == before {
			t.Error("the refresh token in the cache is not a new one")
		}
		h.kubectl("auth", "whoami", "-o", "json").silent(1)
		if n := len(p.of(h.client, refresh)); n != 1 {
			t.Errorf("%d refresh grants after another kubectl", n)
		}
	})
}

// TestLogout ends a session at the provider too.
func TestLogout(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "logout")
		h.login()
		token := h.refreshToken()
		if token == "" {
			t.Fatal("no refresh token in the cache")
		}

		// By way of kubectl, as a person would type it.
		if out := h.kubectl(append([]string{"oidc-device", "logout"}, h.flags()...)...); out.status() != 0 {
			t.Fatal(out)
		}
		if n := p.count(h.client, "revocation"); n != 1 {
			t.Errorf("%d revocations, not one", n)
		}
		if h.refreshToken() != "" {
			t.Error("the refresh token is still in the cache")
		}
		status, answer := p.post(t, "token_endpoint", url.Values{
			"grant_type": {refresh}, "refresh_token": {token}, "client_id": {h.client},
		})
		if status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
			t.Errorf("a copy of the refresh token got %d %v", status, answer["error"])
		}

		if out := h.plugin(append([]string{"get-token", "--prompt=never"}, h.flags()...)...); out.status() != 3 {
			t.Errorf("a login is needed, which is exit status 3: %s", out)
		}
		config := h.writeKubeconfig("never", extraArgs("--prompt=never"))
		never := h.kubectl("--kubeconfig="+config, "auth", "whoami")
		if never.status() == 0 || never.asked() || !strings.Contains(never.heard(), "exit code 3") {
			t.Errorf("kubectl without a login: %s", never)
		}
		h.login().whoami()

		// The same by the name of a context, after a look at what is there.
		list := h.kubectl("oidc-device", "status", "-o", "json")
		var inventory struct {
			Sessions []struct {
				Issuer, ClientID, Subject string
				Contexts                  []string
				Problems                  []struct{ Code string }
			}
		}
		if err := json.Unmarshal(list.stdout.Bytes(), &inventory); err != nil || len(inventory.Sessions) != 1 {
			t.Fatalf("%v: %s", err, list)
		}
		if s := inventory.Sessions[0]; s.Issuer != p.url || s.ClientID != h.client || s.Subject != p.user || !slices.Equal(s.Contexts, []string{"test"}) {
			t.Errorf("the inventory has %+v", s)
		}
		token = h.refreshToken()
		if out := h.kubectl("oidc-device", "logout", "--context=test"); out.status() != 0 {
			t.Error(out)
		}
		status, answer = p.post(t, "token_endpoint", url.Values{
			"grant_type": {refresh}, "refresh_token": {token}, "client_id": {h.client},
		})
		if status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
			t.Errorf("after logout --context a copy of the refresh token got %d %v", status, answer["error"])
		}
		// searchSecrets looks into the trail for secrets, as into all else.
		trail, err := os.ReadFile(filepath.Join(h.dir, ".local", "state", "kubectl-oidc_device", "audit.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		actions := regexp.MustCompile(`"action":"([a-z-]+)"`).FindAllSubmatch(trail, -1)
		var seen []string
		for _, a := range actions {
			seen = append(seen, string(a[1]))
		}
		once := []string{"login-start", "login-approved", "session-revoked", "session-deleted"}
		if !slices.Equal(seen, append(slices.Clone(once), once...)) || bytes.Count(trail, []byte(`"context":"test"`)) != len(seen) {
			t.Errorf("the trail has %q:\n%s", seen, trail)
		}
	})
}

// TestAnotherAudience has a good token for somebody else's API server.
func TestAnotherAudience(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, elsewhere)
		k := h.startKubectl("auth", "whoami")
		k.decide(true)
		if k.status() == 0 || !strings.Contains(k.heard(), "You must be logged in") && !strings.Contains(k.heard(), "Unauthorized") {
			t.Errorf("the API server took it: %s", k)
		}
		// After a 401 kubectl runs the plugin once more.
		if n := p.count(h.client, deviceAuthorization); n != 1 {
			t.Errorf("the person was asked %d times", n)
		}
		wrong := "wrong    api-server "
		refusal := "(HTTP status 401): probably it does not take audience elsewhere of issuer " + p.url
		if out := h.plugin("doctor"); out.status() != 1 || strings.Count(out.stdout.String(), "wrong    ") != 1 ||
			!strings.Contains(out.stdout.String(), wrong) || !strings.Contains(out.stdout.String(), refusal) {
			t.Errorf("doctor: %s", out)
		}
	})
}

// TestDoctor goes the whole road with a real API server at its end.
func TestDoctor(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "doctor")
		h.login().whoami()
		out := h.kubectl("oidc-device", "doctor", "--context=test")
		t.Logf("%s", out)
		if out.status() != 0 || out.heard() != "" {
			t.Errorf("something is wrong: %s", out)
		}
		for _, want := range []string{"ok       client ", "ok       token-key ", `takes the token for user "oidc:` + p.user + `"`} {
			if !strings.Contains(out.stdout.String(), want) {
				t.Errorf("%s is not there", want)
			}
		}
		// A code was asked for, and nobody for an approval.
		if n := p.count(h.client, deviceAuthorization); n != 2 {
			t.Errorf("%d device authorizations for a login and a doctor", n)
		}
	})
}

// TestDenied has the person say no.
func TestDenied(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "denied")
		k := h.startKubectl("auth", "whoami")
		k.decide(false)
		if k.status() == 0 || !strings.Contains(k.heard(), "denied") || !strings.Contains(k.heard(), "exit code 4") {
			t.Errorf("not denied: %s", k)
		}
		if n := p.count(h.client, deviceAuthorization); n != 1 {
			t.Errorf("the person was asked %d times", n)
		}
	})
}

// TestColdCommandDenied is `kubectl get` without a discovery cache, which runs
// a failing plugin five times: the person is asked once.
func TestColdCommandDenied(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "cold")
		k := h.startKubectl("get", "namespaces")
		k.decide(false)
		if k.status() == 0 {
			t.Errorf("not denied: %s", k)
		}
		if n := p.count(h.client, deviceAuthorization); n != 1 {
			t.Errorf("the person was asked %d times", n)
		}
	})
}

// TestVerbose says all that -v has to say, at a login and at a renewal. Every
// test ends by searching what was said for secrets; this one makes sure that
// there were some.
func TestVerbose(t *testing.T) {
	eachProvider(t, func(t *testing.T, w *world, p *provider) {
		h := newHome(t, w, p, "verbose", extraArgs("-v"))
		h.login()
		time.Sleep(time.Duration(clients[h.client][0])*time.Second + 500*time.Millisecond)
		k := h.kubectl("auth", "whoami")
		k.silent(1)
		if !strings.Contains(k.heard(), "oidc-device: ") {
			t.Errorf("-v says nothing: %s", k)
		}
		out := h.plugin(append([]string{"get-token", "-v", "--force-refresh"}, h.flags()...)...)
		if out.status() != 0 {
			t.Error(out)
		}
		if what, found := p.leak(out.stdout.String()); !found || what != "id_token" {
			t.Error("the search for secrets does not find the token in the answer of get-token")
		}
		for _, args := range [][]string{{"status", "-o", "json", "--token-cache-dir=" + h.cacheDir}, {"version"}} {
			h.kubectl(append([]string{"oidc-device"}, args...)...)
		}
		for what, least := range map[string]int{"device_code": 1, "id_token": 3, "refresh_token": 3, "access_token": 3} {
			if n := p.issued(what); n < least {
				t.Errorf("only %d of %s were issued", n, what)
			}
		}
	})
}

// TestOldFlags is an API server that is configured by --oidc-* flags.
func TestOldFlags(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	p := w.node
	cluster, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Flags: []string{
		"--oidc-issuer-url=" + p.url, "--oidc-client-id=flags", "--oidc-ca-file=" + w.caFile,
		"--oidc-username-claim=sub", "--oidc-username-prefix=oidc:",
		"--oidc-groups-claim=groups", "--oidc-groups-prefix=oidc:",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Stop()
	h := newHome(t, w, p, "flags", at(cluster))
	h.login().whoami()
}

// TestRefusedToken is an API server that does not take a token that has not
// expired, for its person is not in a group yet. client-go tells the plugin
// nothing; the next kubectl after the group was given works all the same.
func TestRefusedToken(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	rule := "'cleared' in claims.groups"
	cluster, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Authentication: kube.AuthenticationConfiguration(
		kube.Issuer{URL: w.node.url, Audiences: audiences(), CA: w.ca.PEM, Rule: rule},
		kube.Issuer{URL: w.zitadel.url, Audiences: audiences(), CA: w.ca.PEM, Rule: rule},
	)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Stop() })
	for _, p := range []*provider{w.node, w.zitadel} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := newHome(t, w, p, "refused", at(cluster))
			k := h.startKubectl("auth", "whoami")
			k.decide(true)
			if k.status() == 0 {
				t.Fatalf("the API server took a token that is not cleared: %s", k)
			}
			// The plugin ran twice, and its second token was a new one.
			if n := p.count(h.client, refresh); n != 1 {
				t.Errorf("%d renewals after the first 401, not one", n)
			}
			if err := p.grant("cleared"); err != nil {
				t.Fatal(err)
			}
			second := h.kubectl("auth", "whoami")
			third := h.kubectl("auth", "whoami", "-o", "json")
			t.Logf("after the group was given: exit status %d, then %d", second.status(), third.status())
			third.whoami()
			for _, k := range []*running{second, third} {
				if k.asked() {
					t.Errorf("the person was asked again: %s", k)
				}
			}
			if n := p.count(h.client, refresh); n != 2 || p.count(h.client, deviceAuthorization) != 1 {
				t.Errorf("%d renewals and %d logins, not 2 and 1", n, p.count(h.client, deviceAuthorization))
			}
			// From here on the token is taken, and costs no more renewals.
			h.kubectl("auth", "whoami", "-o", "json").silent(1)
			if n := p.count(h.client, refresh); n != 2 {
				t.Errorf("%d renewals in the end, not 2", n)
			}
		})
	}
}

// TestRotatedKey is a provider that takes another signing key, so that the API
// server refuses tokens that have not expired. It learns of the new key from
// somebody else's token.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	p, err := startZitadel(w.ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	cluster, err := kube.Start(t.Context(), kube.Config{Bins: w.bins, Authentication: kube.AuthenticationConfiguration(
		kube.Issuer{URL: p.url, Audiences: audiences(), CA: w.ca.PEM},
	)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Stop() })
	h, another := newHome(t, w, p, "rotated", at(cluster)), newHome(t, w, p, "another", at(cluster))
	h.login()
	h.kubectl("auth", "whoami", "-o", "json").silent(1)
	p.rotate()
	// The old key is in the API server's cache, and good there, until then.
	another.login()

	// It remembers for 10 s whom it let in.
	refused := h.kubectl("auth", "whoami", "-o", "json")
	for end := time.Now().Add(40 * time.Second); refused.status() == 0 && time.Now().Before(end); {
		time.Sleep(time.Second)
		refused = h.kubectl("auth", "whoami", "-o", "json")
	}
	if refused.status() == 0 || !strings.Contains(refused.heard(), "Unauthorized") && !strings.Contains(refused.heard(), "logged in") {
		t.Errorf("the API server took a token whose key is gone: %s", refused)
	}
	if refused.asked() {
		t.Errorf("the person was asked again: %s", refused)
	}
	next := h.kubectl("auth", "whoami", "-o", "json")
	next.whoami()
	next.silent(1)
	if n := p.count(h.client, refresh); n != 1 {
		t.Errorf("%d renewals, not one", n)
	}
}

// TestStorm is twenty kubectls at once, on a session whose token has expired.
// node oidc-provider revokes everything when a refresh token is used twice.
func TestStorm(t *testing.T) {
	const kubectls = 20
	t.Parallel()
	w := theParts(t)
	p := w.node
	h := newHome(t, w, p, "storm")
	// The token lasts for seconds; a login through kubectl might find it
	// expired at the API server, when the machine is busy.
	login := h.start(filepath.Join(w.pluginDir, "kubectl-oidc_device"), append([]string{"login"}, h.flags()...)...)
	login.decide(true)
	if login.status() != 0 {
		t.Fatal(login)
	}
	time.Sleep(time.Duration(clients[h.client][0])*time.Second + 500*time.Millisecond)

	begin := time.Now()
	var all []*running
	for range kubectls {
		all = append(all, h.startKubectl("auth", "whoami", "-o", "json"))
	}
	var wait sync.WaitGroup
	for _, k := range all {
		wait.Go(func() { k.wait() })
	}
	wait.Wait()
	t.Logf("%d kubectls took %s", kubectls, time.Since(begin).Round(10*time.Millisecond))
	for _, k := range all {
		k.whoami()
		k.silent(1)
	}
	if n := len(p.of(h.client, refresh)); n != 1 {
		t.Errorf("%d refresh grants, not one", n)
	}
	// The session is whole: it can be renewed again.
	if out := h.plugin(append([]string{"get-token", "--force-refresh"}, h.flags()...)...); out.status() != 0 || out.asked() {
		t.Error(out)
	}
}

// TestSlowDown is a provider that says slow_down to the first poll: RFC 8628
// section 3.5 wants 5 s more between all later ones.
func TestSlowDown(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	p := w.zitadel
	h := newHome(t, w, p, "slow")
	h.login().whoami()
	polls := p.of(h.client, deviceGrant)
	if len(polls) < 2 || polls[0].err != "slow_down" {
		t.Fatalf("no slow_down: %+v", polls)
	}
	for i := range polls[1:] {
		gap := polls[i+1].at.Sub(polls[i].at)
		t.Logf("%s, then %s", polls[i].err, gap.Round(time.Millisecond))
		if gap < 2*pollInterval {
			t.Errorf("polled again too soon")
		}
	}
}

// TestBrowser approves in a real browser, at the provider whose pages need
// one: the page behind the link posts itself by script.
func TestBrowser(t *testing.T) {
	t.Parallel()
	program := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if program == "" {
			program, _ = exec.LookPath(name) // none is seen below
		}
	}
	if program == "" {
		missing(t, "no Chromium: set CHROMIUM to the program")
	}
	w := theParts(t)
	h := newHome(t, w, w.node, "browser")
	k := h.startKubectl("auth", "whoami", "-o", "json")
	link, code := k.prompt()
	begin := time.Now()
	approve := exec.CommandContext(t.Context(), "node", "approve.mjs", link, code)
	approve.Dir = w.nodeDir
	approve.Env = append(os.Environ(), "CHROMIUM="+program)
	if out, err := approve.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	t.Logf("the browser took %s", time.Since(begin).Round(100*time.Millisecond))
	k.wait().whoami()
}

// missing skips a test for want of a program; CI has them all.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// TestAnonymous makes sure that a 401 can be had at all.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	w := theParts(t)
	client := &http.Client{Transport: trusting(pool(w.cluster.CA))}
	for path, want := range map[string]int{"/readyz": 200, "/api": 401} {
		response, err := client.Get(w.cluster.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s without a token: %s", path, response.Status)
		}
	}
}
