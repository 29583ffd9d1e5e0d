package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/internal/cli"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// patient is a machine with something wrong on it.
type patient struct {
	*testing.T
	is    *issuer.Issuer
	dir   string
	env   []string
	flags []string // of the session
	args  []string // of doctor alone; with --context the session's flags are in the kubeconfig
	entry map[string]any
	// cluster is the one of the kubeconfig's context.
	cluster map[string]any
	tunnels atomic.Int32 // that the proxy made
}

func newPatient(t *testing.T, o issuer.Options) *patient {
	t.Helper()
	is, err := issuer.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(is.Close)
	is.Set(func(b *issuer.Behaviour) {
		b.PKCE, b.ApproveAfterPolls = "S256", 1
		b.DeviceFields = map[string]any{"interval": 0.05}
	})
	p := &patient{T: t, is: is, dir: t.TempDir()}
	p.flags = []string{"--oidc-issuer-url=" + is.URL(), "--oidc-client-id=kubectl"}
	if pem := is.CAPEM(); len(pem) > 0 {
		p.flags = append(p.flags, "--certificate-authority="+p.write("idp.pem", pem))
	}
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(strings.ToUpper(e), "="); !strings.HasSuffix(name, "_PROXY") && !strings.HasPrefix(name, "OIDC_DEVICE_") {
			p.env = append(p.env, e)
		}
	}
	p.env = append(p.env, "HOME="+p.dir, "XDG_CACHE_HOME="+p.dir, "XDG_STATE_HOME="+p.dir, "KUBECONFIG="+filepath.Join(p.dir, "kubeconfig"))
	p.entry = map[string]any{"apiVersion": "client.authentication.k8s.io/v1", "command": "kubectl-oidc_device", "interactiveMode": "IfAvailable"}
	return p
}

func (p *patient) cache() string { return filepath.Join(p.dir, "kubectl-oidc_device") }

func (p *patient) write(name string, text []byte) string {
	p.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		p.Fatal(err)
	}
	return path
}

func (p *patient) set(f func(*issuer.Behaviour)) { p.is.Set(f) }

func (p *patient) discovery(name string, value any) {
	p.set(func(b *issuer.Behaviour) { b.DiscoveryFields = map[string]any{name: value} })
}

// kubeconfig has one context, test, for the entry and the cluster.
func (p *patient) kubeconfig() {
	p.Helper()
	if p.entry["args"] == nil {
		p.entry["args"] = append([]string{"get-token"}, p.flags...)
	}
	type object = map[string]any
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"contexts": []object{{"name": "test", "context": object{"cluster": "kind", "user": "ada"}}},
		"users":    []object{{"name": "ada", "user": object{"exec": p.entry}}},
	}
	if p.cluster != nil {
		config["clusters"] = []object{{"name": "kind", "cluster": p.cluster}}
	}
	b, err := json.Marshal(config)
	if err != nil {
		p.Fatal(err)
	}
	p.write("kubeconfig", b)
	if p.args == nil {
		p.args = []string{"--context=test"}
	}
	p.flags = nil
}

func (p *patient) run(args ...string) (stdout, stderr string, status int) {
	p.Helper()
	c := exec.Command("kubectl-oidc_device", args...)
	c.Env, c.Dir = p.env, p.dir
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		p.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// login keeps a session of a person who approved.
func (p *patient) login(flags ...string) {
	p.Helper()
	p.flags = append(p.flags, flags...)
	if _, stderr, status := p.run(append([]string{"login"}, p.flags...)...); status != 0 {
		p.Fatal(stderr)
	}
}

// session keeps one with a token that nobody signed: doctor reads it all the
// same.
func (p *patient) session(claims map[string]any, change func(*cache.Entry)) {
	p.Helper()
	now := time.Now()
	all := map[string]any{"iss": p.is.URL(), "aud": "kubectl", "sub": "subject-1", "exp": now.Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	b, err := json.Marshal(all)
	if err != nil {
		p.Fatal(err)
	}
	segment := base64.RawURLEncoding.EncodeToString
	e := &cache.Entry{
		Key:   cache.Key{Issuer: p.is.URL(), ClientID: "kubectl", Scopes: []string{"openid"}},
		Token: cache.NewSecret(segment([]byte(`{"alg":"ES256"}`)) + "." + segment(b) + ".SENTINEL"), RefreshToken: cache.NewSecret("refresh-SENTINEL"),
		Subject: "subject-1", ApprovedAt: now, TokenIssuedAt: now, TokenExpiresAt: now.Add(time.Hour),
	}
	if change != nil {
		change(e)
	}
	if err := cache.NewDisk(p.cache()).Save(e); err != nil {
		p.Fatal(err)
	}
}

func (p *patient) id() string {
	return cache.Key{Issuer: p.is.URL(), ClientID: "kubectl", Scopes: []string{"openid"}}.ID()
}

type diagnosis struct {
	APIVersion, Kind, FirstWrong, Issuer, ClientID, Context, User string
	Checks                                                        []struct{ Name, State, Code, Message, Fix string }
}

// examine runs doctor and reads its report, in which no secret may be.
func (p *patient) examine() (d diagnosis, status int) {
	p.Helper()
	stdout, stderr, status := p.run(slices.Concat([]string{"doctor", "-o", "json"}, p.flags, p.args)...)
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		p.Fatalf("exit status %d, no report: %v\n%s%s", status, err, stdout, stderr)
	}
	for _, secret := range append(p.is.Sentinels(), append(p.is.PendingCodes(), "SENTINEL", "eyJ")...) {
		if strings.Contains(stdout+stderr, secret) {
			p.Errorf("%s is in the report:\n%s%s", secret, stdout, stderr)
		}
	}
	wrong := slices.ContainsFunc(d.Checks, func(c struct{ Name, State, Code, Message, Fix string }) bool { return c.State == "wrong" })
	if wrong != (status == 1) || wrong != (d.FirstWrong != "") || status > 1 {
		p.Errorf("exit status %d, first wrong %q:\n%s%s", status, d.FirstWrong, stdout, stderr)
	}
	if wrong && !strings.Contains(stderr, "error: the first that is wrong is "+d.FirstWrong+": ") {
		p.Errorf("stderr: %s", stderr)
	}
	return d, status
}

// fakeAPIServer answers a SelfSubjectReview, in place of a kube-apiserver: the
// real one is in hack/e2e. Each token of a user gets 201; anything else 401.
func (p *patient) fakeAPIServer(answer http.HandlerFunc) {
	p.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/selfsubjectreviews" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ") {
			http.NotFound(w, r)
			return
		}
		answer(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	p.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	p.cluster = map[string]any{"server": server.URL, "certificate-authority-data": ca}
	p.args = []string{"--server=" + server.URL, "--server-certificate-authority=" + p.write("cluster.pem", ca)}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

const (
	review    = `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","status":{"userInfo":{"username":"oidc:ada","groups":["oidc:developers","system:authenticated"]}}}`
	refusal   = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`
	forbidden = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"user cannot create it","reason":"Forbidden","code":403}`
)

// serving makes a certificate that signs itself.
func serving(t *testing.T, until time.Time, hosts ...string) (*tls.Config, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a provider"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// another gives the patient a provider with that certificate.
func (p *patient) another(config *tls.Config, ca []byte) {
	is, err := issuer.Start(issuer.Options{TLSConfig: config})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(is.Close)
	p.is = is
	p.flags = []string{"--oidc-issuer-url=" + is.URL(), "--oidc-client-id=kubectl", "--certificate-authority=" + p.write("idp.pem", ca)}
}

func (p *patient) flag(f string) { p.flags = append(p.flags, f) }

// issuerURL is not the provider's.
func (p *patient) issuerURL(u string) {
	p.flags = []string{"--oidc-issuer-url=" + u, "--oidc-client-id=kubectl"}
}

// Each finding is caused on purpose, and its fix is read. The provider is the
// one of internal/issuer over real HTTP and TLS, the files are real files; of
// the API server there is a fake.
var doctorCases = []struct {
	code, fix string // part of it
	cause     func(p *patient)
}{
	{"kubeconfig-unreadable", "kubectl config view", func(p *patient) { p.write("kubeconfig", []byte("{{{")) }},
	{"command-missing", ": command: /", func(p *patient) {
		p.entry["command"] = "bin/kubectl-oidc_device"
		p.kubeconfig()
	}},
	{"command-other", "/bin/kubectl-oidc_device version", func(p *patient) {
		p.script("bin/kubectl-oidc_device")
		p.entry["command"] = "bin/kubectl-oidc_device" // from the kubeconfig's folder
		p.kubeconfig()
	}},
	{"double-start", "command: kubectl-oidc_device, and args that begin with get-token", func(p *patient) {
		p.script("bin/kubectl")
		p.env = append(p.env, "PATH="+filepath.Join(p.dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
		p.entry["command"] = "kubectl"
		p.entry["args"] = append([]string{"oidc-device", "get-token"}, p.flags...)
		p.kubeconfig()
	}},
	{"api-version", "--exec-api-version=client.authentication.k8s.io/v1", func(p *patient) {
		p.entry["apiVersion"] = "client.authentication.k8s.io/v1alpha1"
		p.kubeconfig()
	}},
	{"interactive-wrong", "--exec-interactive-mode=IfAvailable", func(p *patient) { delete(p.entry, "interactiveMode"); p.kubeconfig() }},
	{"interactive-wrong", "--exec-interactive-mode=IfAvailable", func(p *patient) { p.entry["interactiveMode"] = "Perhaps"; p.kubeconfig() }},
	{"interactive-mode", "--exec-interactive-mode=IfAvailable", func(p *patient) { p.entry["interactiveMode"] = "Always"; p.kubeconfig() }},
	{"interactive-mode", "--exec-interactive-mode=IfAvailable", func(p *patient) { p.entry["interactiveMode"] = "Never"; p.kubeconfig() }},
	{"arguments", "mend args and env of user ada in", func(p *patient) { p.flag("--oidc-client-secre=SENTINEL"); p.kubeconfig() }},
	{"arguments", "mend args and env of user ada in", func(p *patient) { p.issuerURL("http://idp.example.com"); p.kubeconfig() }},
	{"policy-unreadable", "ls -l /", func(p *patient) { p.env = append(p.env, "OIDC_DEVICE_POLICY="+p.dir+"/nothing") }},
	{"policy-refuses", "ask whoever set that policy", func(p *patient) {
		path := p.write("policy", []byte("apiVersion: oidc-device/v1\nkind: Policy\nallowedIssuers: []\n"))
		if err := os.Chmod(path, 0o644); err != nil {
			p.Fatal(err)
		}
		// The kubeconfig's own variables count.
		p.entry["env"] = []map[string]string{{"name": "OIDC_DEVICE_POLICY", "value": path}}
		p.kubeconfig()
	}},
	{"ca-unreadable", "ls -l /nowhere", func(p *patient) { p.flag("--certificate-authority=/nowhere") }},
	{"ca-unreadable", "--certificate-authority=FILE", func(p *patient) { p.flag("--certificate-authority-data=!") }},
	{"tls-unverified", "--certificate-authority=FILE in place of", func(p *patient) {
		p.another(serving(p.T, time.Now().Add(time.Hour)))
		p.issuerURL(p.is.URL())
		p.flag("--insecure-skip-tls-verify")
	}},
	{"secret-unreadable", "ls -l /nowhere", func(p *patient) { p.flag("--oidc-client-secret-file=/nowhere") }},

	{"proxy-wrong", "HTTPS_PROXY=http://HOST:PORT", func(p *patient) {
		p.issuerURL("https://idp.invalid")
		p.env = append(p.env, "HTTPS_PROXY=[SENTINEL")
	}},
	{"dns-failed", "getent hosts idp.invalid", func(p *patient) { p.issuerURL("https://idp.invalid") }},
	{"dns-failed", "check HTTPS_PROXY: getent hosts proxy.invalid", func(p *patient) {
		p.issuerURL("https://idp.invalid")
		p.env = append(p.env, "HTTPS_PROXY=http://proxy.invalid:3128")
	}},
	// Port 1, where nobody is: one that was given back may be another test's.
	{"tcp-failed", "curl -v http://127.0.0.1:1", func(p *patient) { p.issuerURL("http://127.0.0.1:1") }},
	{"tcp-failed", "NO_PROXY=idp.invalid", func(p *patient) {
		p.env = append(p.env, "HTTPS_PROXY=http://127.0.0.1:1")
		p.issuerURL("https://idp.invalid")
	}},
	{"proxy-refuses", "HTTPS_PROXY=http://USER:PASSWORD@127.0.0.1:", func(p *patient) {
		p.proxy("secret", "")
		p.issuerURL("https://idp.invalid")
	}},
	{"proxy-refuses", "ask those who run the proxy to allow idp.invalid:443\nNO_PROXY=idp.invalid", func(p *patient) {
		p.proxy("", "")
		p.issuerURL("https://idp.invalid")
	}},
	{"proxy-refuses", "it must name an HTTP proxy", func(p *patient) {
		secure := newPatient(p.T, issuer.Options{TLS: true}) // no HTTP is spoken there
		p.env = append(p.env, "HTTPS_PROXY="+strings.Replace(secure.is.URL(), "https", "http", 1))
		secure.is.Fault("other", -1, issuer.Drop)
		p.is = secure.is
		p.issuerURL("https://idp.invalid")
	}},
	{"tls-failed", "openssl s_client -connect 127.0.0.1:", func(p *patient) { p.issuerURL(strings.Replace(p.is.URL(), "http", "https", 1)) }},
	{"tls-unknown-authority", "--certificate-authority=FILE with the certificate of a provider", func(p *patient) {
		p.another(serving(p.T, time.Now().Add(time.Hour)))
		p.issuerURL(p.is.URL())
	}},
	{"tls-other-host", "check --oidc-issuer-url: the certificate is of idp.example.com", func(p *patient) {
		p.another(serving(p.T, time.Now().Add(time.Hour), "idp.example.com"))
	}},
	{"tls-expired", "date -u", func(p *patient) { p.another(serving(p.T, time.Now().Add(-time.Minute))) }},
	{"tls-expires-soon", "those who run 127.0.0.1 must renew the certificate", func(p *patient) {
		p.another(serving(p.T, time.Now().Add(time.Hour)))
	}},

	{"discovery-missing", "curl http://127.0.0.1:", func(p *patient) { p.is.Fault("discovery", -1, issuer.Answer(404, "text/html", "no")) }},
	{"discovery-failed", "curl -i http://127.0.0.1:", func(p *patient) {
		p.is.Fault("discovery", -1, issuer.Answer(200, "text/html", "log in to the network"))
	}},
	{"discovery-failed", "check the network", func(p *patient) { p.is.Fault("discovery", -1, issuer.Drop) }},
	{"issuer-mismatch", "--oidc-issuer-url=https://elsewhere.example.com", func(p *patient) {
		p.set(func(b *issuer.Behaviour) { b.WrongIssuerInDiscovery = "https://elsewhere.example.com" })
	}},
	{"no-device-grant", "switch the device authorization grant on", func(p *patient) { p.set(func(b *issuer.Behaviour) { b.NoDeviceGrant = true }) }},
	{"device-grant-unlisted", "switch the device authorization grant on", func(p *patient) { p.discovery("grant_types_supported", []string{"refresh_token"}) }},
	{"no-pkce", "--oidc-pkce-method=S256", func(p *patient) { p.set(func(b *issuer.Behaviour) { b.PKCE = "" }) }},
	{"pkce-off", "--oidc-pkce-method=auto", func(p *patient) { p.flag("--oidc-pkce-method=no") }},
	{"no-refresh-grant", "switch refresh tokens on", func(p *patient) {
		p.discovery("grant_types_supported", []string{"urn:ietf:params:oauth:grant-type:device_code"})
	}},
	{"no-revocation", "--oidc-revocation-endpoint=URL", func(p *patient) { p.set(func(b *issuer.Behaviour) { b.NoRevocation = true }) }},
	{"algorithms", "RS256 or ES256", func(p *patient) { p.discovery("id_token_signing_alg_values_supported", []string{"HS256", "EdDSA"}) }},
	{"keys-failed", "try again later", func(p *patient) { p.is.Fault("jwks", -1, issuer.Answer(200, "text/html", "no")) }},
	{"no-keys", "--oidc-jwks-uri=URL", func(p *patient) { p.is.Fault("jwks", -1, issuer.Answer(200, "application/json", `{"keys":[]}`)) }},
	{"scope-unlisted", "the provider lists: openid profile email groups", func(p *patient) { p.flag("--oidc-extra-scope=nonsense") }},
	{"client-unknown", "check --oidc-client-id", func(p *patient) { p.set(func(b *issuer.Behaviour) { b.ClientID = "another" }) }},
	{"client-not-allowed", "for this client", func(p *patient) { p.is.Fault("device", -1, issuer.Error(400, "unauthorized_client", "")) }},
	{"scope-refused", "--oidc-extra-scope", func(p *patient) { p.is.Fault("device", -1, issuer.Error(400, "invalid_scope", "")) }},
	{"request-refused", "--oidc-pkce-method", func(p *patient) {
		p.set(func(b *issuer.Behaviour) { b.PKCE = "required" })
		p.flag("--oidc-pkce-method=no")
	}},
	{"device-refused", "ask those who run the provider what this means: consent_required", func(p *patient) {
		p.is.Fault("device", -1, issuer.Error(400, "consent_required", "an administrator must agree"))
	}},
	{"device-failed", "try again later", func(p *patient) { p.is.Fault("device", -1, issuer.Answer(200, "text/html", "no")) }},
	{"clock", "timedatectl set-ntp true", func(p *patient) { p.set(func(b *issuer.Behaviour) { b.ClockAhead = 10 * time.Minute }) }},

	{"cache-untrusted", "chmod 700 '/", func(p *patient) {
		p.write("kubectl-oidc_device/file", nil)
		if err := os.Chmod(p.cache(), 0o777); err != nil {
			p.Fatal(err)
		}
	}},
	{"cache-unwritable", "--token-cache-dir=DIR", func(p *patient) { p.write("kubectl-oidc_device", nil) }},
	{"session-untrusted", "chmod 600 '/", func(p *patient) {
		p.session(nil, nil)
		if err := os.Chmod(filepath.Join(p.cache(), p.id()+".json"), 0o644); err != nil {
			p.Fatal(err)
		}
	}},
	{"session-corrupt", "kubectl oidc-device login --oidc-issuer-url=http://127.0.0.1:", func(p *patient) {
		p.write("kubectl-oidc_device/"+p.id()+".json", []byte("{"))
	}},
	{"corrupt-leftover", "rm /", func(p *patient) { p.write("kubectl-oidc_device/"+p.id()+".corrupt-20260102T150405.000", nil) }},
	{"lock-held", fmt.Sprintf("kill %d", os.Getpid()), func(p *patient) {
		disk := cache.NewDisk(p.cache())
		unlock, err := disk.Lock(p.Context(), p.id(), nil)
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(unlock)
		err = disk.Annotate(p.id(), func(n *cache.Notes) {
			n.Prompt = &cache.Prompt{VerificationURI: "https://idp.example.com/SENTINEL", UserCode: "SENTINEL"}
		})
		if err != nil {
			p.Fatal(err)
		}
	}},
	{"lock-failed", "rm '/", func(p *patient) {
		p.write("kubectl-oidc_device/file", nil)
		if err := os.Symlink("elsewhere", filepath.Join(p.cache(), p.id()+".lock")); err != nil {
			p.Fatal(err)
		}
	}},
	{"keyring-unusable", "--token-cache-storage=disk keeps tokens in a file", func(p *patient) {
		p.env = append(p.env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+filepath.Join(p.dir, "no-bus"))
		p.flag("--token-cache-storage=keyring")
	}},
	{"audit-unwritable", "--audit-log=FILE", func(p *patient) { p.flag("--audit-log=" + p.dir) }},
	{"audit-required", "--audit-log=FILE", func(p *patient) { p.flag("--audit-log=" + p.dir); p.flag("--audit-required") }},

	{"token-opaque", "audience=…", func(p *patient) { p.login("--oidc-use-access-token") }},
	{"token-expired", "kubectl auth whoami", func(p *patient) {
		p.session(nil, func(e *cache.Entry) { e.TokenExpiresAt = time.Now().Add(-time.Minute) })
	}},
	{"token-dead", "kubectl oidc-device login --oidc-issuer-url=http://127.0.0.1:", func(p *patient) {
		p.session(nil, func(e *cache.Entry) {
			e.TokenExpiresAt, e.RefreshToken = time.Now().Add(-time.Minute), cache.Secret{}
		})
	}},
	{"token-issuer", "--oidc-issuer-url=https://idp.example.com/", func(p *patient) { p.session(map[string]any{"iss": "https://idp.example.com/"}, nil) }},
	{"token-audience", "kubectl oidc-device login", func(p *patient) { p.session(map[string]any{"aud": []string{"another"}}, nil) }},
	{"token-no-audience", "audience=…", func(p *patient) {
		p.set(func(b *issuer.Behaviour) { b.JWTAccessToken, b.Audience = true, []string{} })
		p.login("--oidc-use-access-token")
	}},
	{"token-key", "kubectl oidc-device login", func(p *patient) { p.login(); p.is.RotateKey(false) }},
	{"email-unverified", "--oidc-username-claim", func(p *patient) {
		p.claims("email_verified", false)
		p.login()
	}},
	{"groups-missing", "claim groups", func(p *patient) {
		p.claims("groups", nil)
		p.login("--oidc-extra-scope=groups")
	}},
	{"groups-overage", "assigned to the application", func(p *patient) {
		p.set(func(b *issuer.Behaviour) {
			b.ExtraClaims = map[string]any{
				"groups": nil, "_claim_names": map[string]any{"groups": "src1"},
				"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example.com"}},
			}
		})
		p.login()
	}},
	{"groups-many", "only the groups that the cluster knows", func(p *patient) {
		p.claims("groups", slices.Repeat([]string{"g"}, 201))
		p.login()
	}},
	{"token-large", "groups above all", func(p *patient) {
		p.claims("note", strings.Repeat("x", 8000))
		p.login()
	}},

	{"api-config", "https URL", func(p *patient) { p.login(); p.args = []string{"--server=http://api.example.com"} }},
	{"api-config", "--server-certificate-authority", func(p *patient) {
		p.login()
		p.args = []string{"--server=https://127.0.0.1:1", "--server-certificate-authority=/nowhere"}
	}},
	{"api-config", "kubectl config set-cluster kind --server=URL", func(p *patient) { p.login(); p.kubeconfig() }},
	{"api-tls", "--server-certificate-authority=FILE", func(p *patient) {
		p.login()
		p.fakeAPIServer(status(201, review))
		p.args = p.args[:1]
	}},
	{"api-unreachable", "/version", func(p *patient) { p.login(); p.args = []string{"--server=https://127.0.0.1:1"} }},
	{"api-answer", "Kubernetes 1.28 or later", func(p *patient) { p.login(); p.fakeAPIServer(status(404, forbidden)) }},
	{"api-answer", "Kubernetes 1.28 or later", func(p *patient) {
		p.login()
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { p.Error("a redirect was followed") }))
		p.Cleanup(elsewhere.Close)
		p.fakeAPIServer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		})
	}},
	{"api-unauthorized", "--oidc-client-id=kubectl", func(p *patient) { p.login(); p.fakeAPIServer(status(401, refusal)) }},
	{"api-unauthorized", "kubectl oidc-device login", func(p *patient) {
		p.login()
		p.is.RotateKey(false)
		p.fakeAPIServer(status(401, refusal))
	}},
	{"api-forbidden", "system:basic-user", func(p *patient) { p.login(); p.fakeAPIServer(status(403, forbidden)) }},
}

func (p *patient) claims(name string, value any) {
	p.set(func(b *issuer.Behaviour) { b.ExtraClaims = map[string]any{name: value} })
}

func (p *patient) script(name string) {
	if err := os.Chmod(p.write(name, []byte("#!/bin/sh\n")), 0o700); err != nil {
		p.Fatal(err)
	}
}

// proxy wants a password, if it is not empty, and lets through to one address
// alone, whatever the name.
func (p *patient) proxy(password, to string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("ada:"+password))
		switch {
		case password != "" && r.Header.Get("Proxy-Authorization") != want:
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		case r.Method != http.MethodConnect || to == "":
			w.WriteHeader(http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		// The answer comes last: what the client sends on it must not reach the
		// server's own reader.
		here, read, err := http.NewResponseController(w).Hijack()
		if err != nil {
			there.Close()
			return
		}
		p.tunnels.Add(1)
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		// Each ends the other.
		go func() { io.Copy(there, read); there.Close() }()
		go func() { io.Copy(here, there); here.Close() }()
	}))
	p.Cleanup(server.Close)
	p.env = append(p.env, "HTTPS_PROXY="+server.URL)
}

func TestDoctorFindings(t *testing.T) {
	caused := map[string]bool{}
	for i, c := range doctorCases {
		caused[c.code] = true
		t.Run(fmt.Sprintf("%s-%d", c.code, i), func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, issuer.Options{})
			c.cause(p)
			d, _ := p.examine()
			for _, got := range d.Checks {
				switch {
				case got.State != "ok" && got.State != "skipped" && (got.Fix == "" || got.Code == ""):
					t.Errorf("a finding without a fix: %+v", got)
				case got.Code == c.code && got.State != cli.Findings[c.code]:
					t.Errorf("%s is %s", c.code, got.State)
				case got.Code == c.code && !strings.Contains(got.Fix, c.fix):
					t.Errorf("the fix of %s is %q, without %q", c.code, got.Fix, c.fix)
				}
			}
			if !slices.ContainsFunc(d.Checks, func(got struct{ Name, State, Code, Message, Fix string }) bool { return got.Code == c.code }) {
				t.Errorf("%s was not found: %+v", c.code, d.Checks)
			}
		})
	}
	for code := range cli.Findings {
		if !caused[code] {
			t.Errorf("no test causes %s", code)
		}
	}
	// And none is found that is not in the table.
	for _, file := range []string{"doctor.go", "doctor_net.go", "doctor_token.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:found|blame)\("([^"]*)"`).FindAllSubmatch(b, -1) {
			if cli.Findings[string(m[1])] == "" {
				t.Errorf("%s: %s is not in the table", file, m[1])
			}
		}
	}
}

// A whole machine, from the kubeconfig to the API server, through TLS with an
// authority of its own: nothing is found.
func TestDoctorFindsNothing(t *testing.T) {
	p := newPatient(t, issuer.Options{TLS: true})
	p.login()
	p.fakeAPIServer(status(201, review))
	p.args = nil
	p.kubeconfig()
	d, status := p.examine()
	if status != 0 || d.APIVersion != "oidc-device/v1" || d.Kind != "Diagnosis" || d.Issuer != p.is.URL() || d.ClientID != "kubectl" || d.Context != "test" || d.User != "ada" {
		t.Errorf("exit status %d, %+v", status, d)
	}
	messages := map[string]string{}
	for _, c := range d.Checks {
		messages[c.Name] = c.Message
		if c.State != "ok" && !slices.Contains([]string{"secret", "tunnel", "keyring"}, c.Name) {
			t.Errorf("%+v", c)
		}
	}
	for name, want := range map[string]string{
		"kubeconfig": "user ada of context test in ", "tls": "issuer ← issuer test authority, good until 20",
		"api-server": `for user "oidc:ada", groups oidc:developers, system:authenticated`, "token-groups": "2: developers, on-call",
	} {
		if !strings.Contains(messages[name], want) {
			t.Errorf("%s says %q", name, messages[name])
		}
	}
	// Nor is anything left of its own in the cache folder.
	if left, err := filepath.Glob(filepath.Join(p.cache(), ".*")); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v: %v", left, err)
	}
	// Nobody is asked: the code was given, and is left to expire.
	if n := len(p.is.PendingCodes()); n != 1 {
		t.Errorf("%d codes are pending", n)
	}
}

// The provider has a name that only the proxy knows, and the proxy wants a
// password.
func TestDoctorThroughAProxy(t *testing.T) {
	p := newPatient(t, issuer.Options{TLS: true, Hosts: []string{"idp.invalid"}})
	at, err := url.Parse(p.is.URL())
	if err != nil {
		t.Fatal(err)
	}
	p.proxy("SENTINEL", at.Host)
	for i, e := range p.env {
		p.env[i] = strings.Replace(e, "HTTPS_PROXY=http://", "HTTPS_PROXY=http://ada:SENTINEL@", 1)
	}
	p.flags[0] = "--oidc-issuer-url=https://idp.invalid"
	p.set(func(b *issuer.Behaviour) { b.WrongIssuerInDiscovery = "https://idp.invalid" })
	d, _ := p.examine()
	for _, c := range d.Checks {
		want := map[string]string{
			"proxy": "idp.invalid is reached through the proxy 127.0.0.1:", "tcp": "connected to 127.0.0.1:",
			"tunnel": "the proxy connects to idp.invalid:443", "tls": "issuer ←", "discovery": "https://idp.invalid calls itself that",
		}[c.Name]
		if want != "" && (c.State != "ok" || !strings.Contains(c.Message, want)) {
			t.Errorf("%+v", c)
		}
	}
}

// What cannot be tried is skipped and says why; what can is tried.
func TestDoctorGoesOn(t *testing.T) {
	p := newPatient(t, issuer.Options{})
	p.login()
	p.is.Close()
	d, _ := p.examine()
	for _, c := range d.Checks {
		want, why := "ok", ""
		switch c.Name {
		case "tcp":
			want = "wrong"
		case "tls", "discovery", "client", "clock", "keys", "token-key":
			want, why = "skipped", "tcp is wrong"
		case "cache", "lock", "token", "token-audience", "token-groups", "audit-log":
		default:
			continue
		}
		if c.State != want || why != "" && c.Message != why {
			t.Errorf("%+v", c)
		}
	}
	if d.FirstWrong != "tcp" {
		t.Errorf("the first wrong is %q", d.FirstWrong)
	}
}
