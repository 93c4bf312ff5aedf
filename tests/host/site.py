"""An admin site of the host project, with screens of its own."""

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path


class OfficeSite(admin.AdminSite):
    """The office."""

    site_header = "The office"
    index_title = "What there is to do"


class PeopleAdmin(admin.ModelAdmin):
    """A screen with filters, a search, an action, fields of its own and a page of its own."""

    list_display = ("username", "email", "is_staff")
    list_filter = ("is_staff",)
    search_fields = ("username",)
    fields = ("username", "email", "is_staff")
    actions = ("greet",)

    @admin.action(description="Greet")
    def greet(self, request: HttpRequest, queryset: object) -> None:
        """Say hello."""
        self.message_user(request, f"Hello {queryset}")

    def get_urls(self) -> list[URLPattern]:
        """One more page."""
        return [path("report/", self.admin_site.admin_view(self.report), name="people_report"), *super().get_urls()]

    def report(self, request: HttpRequest) -> HttpResponse:
        """It says little."""
        return HttpResponse("a report")


class TeamAdmin(admin.ModelAdmin):
    """A screen with one field."""

    fields = ("name",)


office = OfficeSite(name="office")
office.register(User, PeopleAdmin)
office.register(Group, TeamAdmin)
admin.site.unregister(User)
admin.site.unregister(Group)
admin.site.register(User, PeopleAdmin)
admin.site.register(Group, TeamAdmin)

# As in our own console: the admin of the queue can run any function.
for model in apps.get_app_config("django_q").get_models() if apps.is_installed("django_q") else ():
    if admin.site.is_registered(model):
        admin.site.unregister(model)
