"""The addresses of the host project: the stock admin, and an admin site of its own."""

from django.contrib import admin
from django.urls import path

from tests.host.site import office

urlpatterns = [path("admin/", admin.site.urls), path("office/", office.urls)]
