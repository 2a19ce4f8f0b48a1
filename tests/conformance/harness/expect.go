package harness

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Refused checks that a call was refused with a code, and that all these texts stand in the refusal.
func Refused(t *testing.T, err error, code codes.Code, texts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("not refused with %v: %v", code, err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(status.Convert(err).Message(), text) {
			t.Errorf("%q is not in the refusal: %v", text, err)
		}
	}
}

// Item checks the status of one item of a batch; a success has the text OK.
func Item(t *testing.T, item *types.Status, code codes.Code, texts ...string) {
	t.Helper()
	if codes.Code(item.GetCode()) != code {
		t.Errorf("item is not %v: %v", code, item)
		return
	}
	if code == codes.OK {
		texts = []string{"OK"}
	}
	for _, text := range texts {
		if !strings.Contains(item.GetMessage(), text) {
			t.Errorf("%q is not in the item's status: %v", text, item)
		}
	}
}

// DenialReason is the reason that agents act on, from the details of a refusal.
func DenialReason(t *testing.T, err error) types.PermissionDeniedDetails_Reason {
	t.Helper()
	Refused(t, err, codes.PermissionDenied)
	for _, detail := range status.Convert(err).Details() {
		if details, is := detail.(*types.PermissionDeniedDetails); is {
			return details.Reason
		}
	}
	t.Errorf("no PermissionDeniedDetails: %v", err)
	return types.PermissionDeniedDetails_UNKNOWN
}

// Done is the code that we answer where SPIRE answers another one that says less.
func Done(right, inSPIRE codes.Code) codes.Code {
	if Stock() {
		return inSPIRE
	}
	return right
}

// Equal compares what was found with what was expected.
func Equal(t *testing.T, what string, found, expected any) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Errorf("%s is %v, not %v", what, found, expected)
	}
}

// True checks something that has to be so.
func True(t *testing.T, what string, isSo bool) {
	t.Helper()
	if !isSo {
		t.Errorf("not so: %s", what)
	}
}
