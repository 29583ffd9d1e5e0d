package cache

import (
	"reflect"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret/secrettest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	secrettest.Types(t, []reflect.Type{reflect.TypeFor[Entry]()}, nil, []string{
		"record.Token", "record.RefreshToken", // the file's form, which does not leave its source file
		"keyringRecord.Token",    // a hash
		"Reach.ClientSecretFile", // a path
	})
}
